//! The unwinder of a program without unwind tables: there is no frame to be found, ever.
//!
//! A panic asks for the frames of the stack and then looks for debugging information to name them with.
//! There are no tables to find a frame by (`hack/build.rs`), so the answer is always "none". When the program
//! is linked as a whole, the linker sees that nobody is ever asked about a frame, and leaves out the unwinder
//! and the readers of DWARF: a seventh of a file that is copied at every start (`src/spawn/seal.rs`). A panic
//! still tells its message and place, and aborts.

use std::ffi::{c_int, c_void};

/// `_URC_END_OF_STACK` of the Itanium C++ ABI.
const END_OF_STACK: c_int = 5;

// SAFETY: the one definition of this name, of the type that the ABI gives it; calls nothing, reads nothing.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Backtrace(
    _each: extern "C" fn(*mut c_void, *mut c_void) -> c_int,
    _data: *mut c_void,
) -> c_int {
    END_OF_STACK
}

/// What the landing pads and the personality of the standard library's compiled code name, and what is only
/// called by somebody who unwinds.
macro_rules! never_called {
    ($($name:ident)*) => {$(
        // SAFETY: the one definition of this name; whatever the arguments are, they are not looked at.
        #[unsafe(no_mangle)]
        extern "C" fn $name() -> ! {
            std::process::abort()
        }
    )*};
}

never_called!(
    _Unwind_Resume
    _Unwind_GetDataRelBase
    _Unwind_GetIP
    _Unwind_GetIPInfo
    _Unwind_GetLanguageSpecificData
    _Unwind_GetRegionStart
    _Unwind_GetTextRelBase
    _Unwind_SetGR
    _Unwind_SetIP
);
