//! Our programs against libseccomp's, call by call.

use super::interpreter::{Call, run, trace};
use super::libseccomp::Library;
use super::{PROFILES, naive, parse, program};
use crate::seccomp::tables;
use oci_spec::runtime::{Arch, LinuxSeccomp};
use std::collections::BTreeSet;

const ARCHS: [Arch; 5] = [
    Arch::ScmpArchX86_64,
    Arch::ScmpArchX86,
    Arch::ScmpArchX32,
    Arch::ScmpArchAarch64,
    Arch::ScmpArchArm,
];

/// Numbers around everything that is special.
fn numbers() -> Vec<u32> {
    let mut numbers: Vec<u32> = (0..=600).collect();
    numbers.extend((0..=600).map(|n| n + naive::X32_BIT));
    numbers.extend(0xf_0000..=0xf_0008);
    let edges = [1023, 0x3fff_ffff, 0x7fff_ffff, 0x8000_0000, 0xc000_0000, 0xffff_fffe, u32::MAX];
    numbers.extend(edges);
    numbers
}

/// Argument vectors that hit every compared value, its neighbours, and the same
/// with other high words, in all combinations of the arguments in use.
pub fn vectors(profile: &LinuxSeccomp) -> Vec<[u64; 6]> {
    let mut values: [BTreeSet<u64>; 6] = Default::default();
    for arg in profile.syscalls().iter().flatten().flat_map(|c| c.args().iter().flatten()) {
        let two = arg.value_two().unwrap_or(0);
        for v in [arg.value(), two, arg.value() | two] {
            for v in [v, v.wrapping_add(1), v.wrapping_sub(1)] {
                values[arg.index()].extend([v, u64::from(v as u32), v | 1 << 32]);
            }
        }
    }
    let mut vectors = vec![[0u64; 6]];
    for (i, values) in values.iter().enumerate() {
        let fresh: Vec<[u64; 6]> = vectors
            .iter()
            .flat_map(|v| values.iter().map(move |x| (v, x)))
            .map(|(v, x)| {
                let mut v = *v;
                v[i] = *x;
                v
            })
            .collect();
        vectors.extend(fresh);
    }
    vectors.extend([[u64::MAX; 6], [1; 6], [1 << 32; 6]]);
    // The first argument of socketcall and ipc.
    vectors.extend((0..=25).map(|n| [n, 0, 0, 0, 0, 0]));
    vectors
}

/// Numbers whose verdict depends on arguments.
fn conditional(profile: &LinuxSeccomp) -> BTreeSet<u32> {
    let rules = profile.syscalls().iter().flatten().filter(|c| c.args().is_some());
    let mut numbers: BTreeSet<u32> = rules
        .flat_map(|c| c.names())
        .flat_map(|name| ARCHS.map(|arch| naive::number(arch, name)))
        .flatten()
        .collect();
    numbers.extend([102, 117]);
    numbers
}

/// Numbers that the profile names and that this libseccomp is too old to know.
fn gaps(library: &Library, profile: &LinuxSeccomp) -> BTreeSet<(u32, u32)> {
    let names = profile.syscalls().iter().flatten().flat_map(|c| c.names());
    let pairs = names.flat_map(|name| ARCHS.map(|arch| (arch, name)));
    pairs
        .filter(|(arch, name)| library.undefined(*arch, name))
        .filter_map(|(arch, name)| Some((arch as u32, naive::number(arch, name)?)))
        .collect()
}

/// How many instructions an x86_64 call runs through on average.
fn mean(filter: &[libc::sock_filter]) -> f64 {
    let call = |number| Call { number, arch: naive::X86_64, args: [0; 6] };
    let steps: usize = (0..460).map(|number| trace(filter, &call(number)).1).sum();
    (steps as f64 / 46.0).round() / 10.0
}

/// Compares all verdicts; returns how many calls were compared, how many differ
/// as intended (ENOSYS), and the numbers that libseccomp knows nothing about.
fn compare(name: &str, library: &Library, profile: &LinuxSeccomp) -> (usize, usize, BTreeSet<u32>) {
    let ours = program(profile).filter;
    let theirs = library.compile(profile).unwrap();
    println!("{name}: {} instructions, libseccomp {}", ours.len(), theirs.len());
    println!("{name}: {} instructions a call, libseccomp {}", mean(&ours), mean(&theirs));
    let gaps = gaps(library, profile);
    let (vectors, conditional) = (vectors(profile), conditional(profile));
    let few = &vectors[vectors.len().saturating_sub(29)..][..3];
    let (mut compared, mut newer, mut unknown) = (0, 0, BTreeSet::new());
    for arch in [naive::X86_64, naive::I386, naive::AARCH64, naive::ARM, 0x1234] {
        for number in numbers() {
            let probe = Call { number, arch, args: [0; 6] };
            let is_newer = naive::is_newer(profile, &probe);
            let gap = naive::arch(profile, &probe)
                .is_some_and(|arch| gaps.contains(&(arch as u32, number)));
            if gap {
                unknown.insert(number);
            }
            let vectors = if conditional.contains(&number) { &vectors[..] } else { few };
            for args in vectors {
                let call = Call { args: *args, ..probe };
                let expected = match run(&theirs, &call) {
                    _ if gap => naive::evaluate(profile, &call),
                    _ if is_newer => naive::ENOSYS,
                    verdict => verdict,
                };
                let ours = run(&ours, &call);
                assert_eq!(ours, expected, "{name}: {call:x?}: we {ours:#x}, it {expected:#x}");
                compared += usize::from(!gap);
                newer += usize::from(is_newer && expected != run(&theirs, &call));
            }
        }
    }
    (compared, newer, unknown)
}

#[test]
fn engine_profiles_match_libseccomp() {
    let Some(library) = Library::load() else { return };
    for (name, text) in PROFILES {
        let profile = parse(text);
        let (compared, newer, unknown) = compare(name, &library, &profile);
        println!("{name}: {compared} calls equal, {newer} of them newer; unknown {unknown:?}");
        assert!(compared > 10_000);
    }
}

#[test]
fn all_architectures_match_libseccomp() {
    let Some(library) = Library::load() else { return };
    for archs in [
        r#"[]"#,
        r#"["SCMP_ARCH_X86"]"#,
        r#"["SCMP_ARCH_X32"]"#,
        r#"["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]"#,
        r#"["SCMP_ARCH_X32", "SCMP_ARCH_X86", "SCMP_ARCH_AARCH64", "SCMP_ARCH_X86"]"#,
    ] {
        for (name, text) in PROFILES.iter().filter(|(n, _)| ["docker", "podman"].contains(n)) {
            let list = r#"["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]"#;
            assert!(text.contains(list));
            let profile = parse(&text.replace(list, archs));
            compare(&format!("{name} {archs}"), &library, &profile);
        }
    }
}

#[test]
fn numbers_match_libseccomp() {
    let Some(library) = Library::load() else { return };
    let mut theirs_missing = 0;
    let mut ours_missing = Vec::new();
    for row in tables::rows() {
        let name = std::str::from_utf8(row.name()).unwrap();
        for arch in ARCHS {
            match (naive::number(arch, name), library.number(arch, name)) {
                (Some(ours), Some(theirs)) => assert_eq!(ours, theirs, "{arch} {name}"),
                (Some(_), None) => theirs_missing += 1,
                (None, Some(theirs)) => ours_missing.push((arch, name, theirs)),
                (None, None) => {}
            }
        }
    }
    println!("{theirs_missing} entries unknown to libseccomp, unknown to us: {ours_missing:?}");
    assert!(ours_missing.is_empty());
}
