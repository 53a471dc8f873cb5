//! Tests of the tests: a wrapper around the runtime breaks one rule that engines rely on, and
//! the test of that rule must notice.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::support::{Bundle, host, onggi, patience};

/// What every wrapper knows of its arguments before it calls the runtime.
const PREAMBLE: &str = r#"
command= previous= root= log= pid_file=
for argument; do
    case $previous in
        --root) root=$argument ;;
        --log) log=$argument ;;
        --pid-file) pid_file=$argument ;;
    esac
    case $argument in
        create|start|state|kill|delete|run|exec|features) command=${command:-$argument} ;;
    esac
    previous=$argument
done
"#;

/// Runs one test of this program against a wrapper: `before` and `after` are what the wrapper
/// does around its call of the runtime. Returns whether the test has passed, and its output.
fn run_test(test: &str, before: &str, after: &str) -> (bool, String) {
    let bundle = Bundle::new();
    let wrapper = bundle.dir().join("wrapper");
    let binary = onggi::binary();
    let call = format!("{before}\n'{}' \"$@\"\ncode=$?\n{after}\nexit $code\n", binary.display());
    fs::write(&wrapper, format!("#!/bin/sh\n{PREAMBLE}{call}")).unwrap();
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
    let own = std::env::current_exe().unwrap();
    let variable = format!("ONGGI_BIN={}", wrapper.display());
    // Every fault that makes the test wait is to cost a tenth of what a real wait may take.
    let patience = format!("ONGGI_IT_PATIENCE={}", patience().as_secs() / 10);
    let env = ["env", &variable, &patience, "RUST_BACKTRACE=0"];
    let test = [own.to_str().unwrap(), "--exact", test, "--test-threads=1"];
    let (status, text) = host::tool(&[&env[..], &test].concat());
    assert!(text.contains("running 1 test"), "{test:?} is not one test: {text}");
    (status.success(), text)
}

/// The test passes through the bare wrapper and fails through the broken one.
#[track_caller]
fn assert_noticed(test: &str, before: &str, after: &str) {
    let (passed, text) = run_test(test, "", "");
    assert!(passed, "{test} fails without any fault: {text}");
    let (passed, text) = run_test(test, before, after);
    assert!(!passed, "{test} has not noticed the fault: {text}");
}

/// containerd: `strconv.Atoi: parsing "24101\n"`.
#[test]
fn row100_newline_in_the_pid_file_is_noticed() {
    require!(root);
    let fault = "test -f \"$pid_file\" && echo >> \"$pid_file\"";
    assert_noticed("contract_pid_file::row28_pid_file_exact_bytes_no_newline", "", fault);
}

/// conmon would take the failure for that of the command.
#[test]
fn row100_pid_file_after_a_failed_create_is_noticed() {
    require!(root);
    let fault = "test -n \"$pid_file\" && echo 1 > \"$pid_file\"";
    assert_noticed("contract_pid_file::row30_no_pid_file_after_a_failed_create", "", fault);
}

/// containerd shows the text of an earlier failure.
#[test]
fn row100_missing_log_is_noticed() {
    require!(root);
    let fault = "rm -f \"$log\"";
    assert_noticed("contract_cli::row5_every_failing_command_logs_an_error_line", "", fault);
}

/// containerd and podman cannot parse the log.
#[test]
fn row100_bad_time_in_the_log_is_noticed() {
    require!(root);
    let fault = "sed -i 's/\"time\":\"[^\"]*\"/\"time\":\"yesterday\"/' \"$log\"";
    assert_noticed("contract_cli::row3_log_line_has_level_msg_and_rfc3339_time", "", fault);
}

/// podman falls back to stderr.
#[test]
fn row100_second_log_line_is_noticed() {
    require!(root);
    let fault = "test -s \"$log\" && echo '{\"level\":\"error\",\"msg\":\"again\"}' >> \"$log\"";
    assert_noticed("contract_cli::row4_exactly_one_log_line_on_a_failing_command", "", fault);
}

/// It blocked containerd for as long as the helper lived.
#[test]
fn row100_helper_that_keeps_stdout_after_start_is_noticed() {
    require!(root);
    let fault = "test \"$command\" = start && sleep 30 &";
    assert_noticed("start::row54_after_start_nobody_holds_its_stdout_and_stderr", "", fault);
}

/// containerd and CRI-O would go on killing.
#[test]
fn row100_wrong_text_of_kill_is_noticed() {
    require!(root);
    let fault = "test \"$command\" = kill && exec 2>/dev/null";
    assert_noticed("kill::row76_kill_of_a_stopped_container", fault, "");
}

/// docker build and kubectl exec would show the wrong code.
#[test]
fn row100_lost_exit_code_is_noticed() {
    require!(root);
    let fault = "test \"$command\" = exec && test $code != 0 && code=1";
    assert_noticed("exec::row66_exec_exits_with_the_code_of_the_process", "", fault);
}

/// CRI-O parses stdout and stderr together.
#[test]
fn row100_features_with_noise_is_noticed() {
    require!(root);
    let fault = "test \"$command\" = features && echo probing >&2";
    assert_noticed("contract_info::row24_features_is_pure_json_with_and_without_debug", fault, "");
}

/// The id would be taken for ever.
#[test]
fn row100_left_state_directory_is_noticed() {
    require!(root);
    let fault = "test \"$command\" = delete && mkdir -p \"$root/web\"";
    assert_noticed("delete::row80_delete_of_a_stopped_container", "", fault);
}

/// An engine would wait for ever for a process that is not its child.
#[test]
fn row100_runtime_that_stays_after_create_is_noticed() {
    require!(root);
    let fault = "test \"$command\" = create && sleep 6 >/dev/null 2>&1 </dev/null &";
    assert_noticed("lifecycle::row31_nothing_but_init_stays_after_create", "", fault);
}
