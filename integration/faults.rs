//! Tests of the tests: a wrapper around the runtime breaks one rule that engines rely on, and
//! the test of that rule must notice.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::support::{Bundle, host, onggi, patience};

/// What every wrapper knows of its arguments before it calls the runtime.
const PREAMBLE: &str = r#"
command= previous= root= log= pid_file= bundle=
for argument; do
    case $previous in
        --root) root=$argument ;;
        --log) log=$argument ;;
        --pid-file) pid_file=$argument ;;
        --bundle) bundle=$argument ;;
    esac
    case $argument in
        create|start|state|kill|delete|run|exec|features) command=${command:-$argument} ;;
    esac
    previous=$argument
done
"#;

/// What a test says that waits for the end of a stream.
const HELD: &str = "the other end is still held";

/// What a wrapper does wrong before and after its call of the runtime, whose arguments are `"$@"` and whose path
/// is `$runtime`; and the words with which the test must fail: else it may be for another reason.
struct Fault {
    before: String,
    after: String,
    says: &'static str,
    patience: u64,
}

fn before(script: impl Into<String>, says: &'static str) -> Fault {
    Fault { before: script.into(), ..after("", says) }
}

fn after(script: impl Into<String>, says: &'static str) -> Fault {
    let patience = patience().as_secs();
    Fault { before: String::new(), after: script.into(), says, patience }
}

impl Fault {
    /// The test waits for what will not come: that is to cost a tenth of what a real wait may take.
    fn in_vain(self) -> Fault {
        Fault { patience: self.patience / 10, ..self }
    }
}

/// Runs one test of this program against a wrapper. Returns whether the test has passed, and its output.
fn run_test(test: &str, (before, after): (&str, &str), patience: u64) -> (bool, String) {
    let bundle = Bundle::new();
    let wrapper = bundle.dir().join("wrapper");
    let head = format!("#!/bin/sh\nruntime='{}'\n{PREAMBLE}", onggi::binary().display());
    let call = format!("{before}\n\"$runtime\" \"$@\"\ncode=$?\n{after}\nexit $code\n");
    fs::write(&wrapper, head + &call).unwrap();
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
    let own = std::env::current_exe().unwrap();
    let variable = format!("ONGGI_BIN={}", wrapper.display());
    let patience = format!("ONGGI_IT_PATIENCE={patience}");
    let env = ["env", &variable, &patience, "RUST_BACKTRACE=0"];
    let test = [own.to_str().unwrap(), "--exact", test, "--test-threads=1"];
    let (status, text) = host::tool(&[&env[..], &test].concat());
    assert!(text.contains("running 1 test"), "{test:?} is not one test: {text}");
    (status.success(), text)
}

/// The test passes through the bare wrapper, and through each broken one fails as it should.
#[track_caller]
fn assert_noticed(test: &str, faults: &[Fault]) {
    let (passed, text) = run_test(test, ("", ""), patience().as_secs());
    assert!(passed, "{test} fails without any fault: {text}");
    for Fault { before, after, says, patience } in faults {
        let (passed, text) = run_test(test, (before, after), *patience);
        assert!(!passed, "{test} has not noticed the fault: {before}{after}\n{text}");
        assert!(text.contains(says), "{test} does not say {says:?}: {before}{after}\n{text}");
    }
}

/// containerd: `strconv.Atoi: parsing "24101\n"`.
#[test]
fn row100_newline_in_the_pid_file_is_noticed() {
    require!(root);
    let fault = after("test -f \"$pid_file\" && echo >> \"$pid_file\"", ", 10]\n right: ");
    assert_noticed("contract_pid_file::row28_pid_file_exact_bytes_no_newline", &[fault]);
}

/// conmon would take the failure for that of the command.
#[test]
fn row100_pid_file_after_a_failed_create_is_noticed() {
    require!(root);
    let script = "test -n \"$pid_file\" && echo 1 > \"$pid_file\"";
    let fault = after(script, "!pid_file(&bundle).exists()");
    assert_noticed("contract_pid_file::row30_no_pid_file_after_a_failed_create", &[fault]);
}

/// containerd shows the text of an earlier failure.
#[test]
fn row100_missing_log_is_noticed() {
    require!(root);
    let fault = after("rm -f \"$log\"", "not logged: ");
    assert_noticed("contract_cli::row5_every_failing_command_logs_an_error_line", &[fault]);
}

/// containerd and podman cannot parse the log.
#[test]
fn row100_bad_time_in_the_log_is_noticed() {
    require!(root);
    let script = "sed -i 's/\"time\":\"[^\"]*\"/\"time\":\"yesterday\"/' \"$log\"";
    let fault = after(script, "\n\"yesterday\"\n");
    assert_noticed("contract_cli::row3_log_line_has_level_msg_and_rfc3339_time", &[fault]);
}

/// podman falls back to stderr.
#[test]
fn row100_second_log_line_is_noticed() {
    require!(root);
    let script = "test -s \"$log\" && echo '{\"level\":\"error\",\"msg\":\"again\"}' >> \"$log\"";
    let fault = after(script, "\n  left: 2\n");
    assert_noticed("contract_cli::row4_exactly_one_log_line_on_a_failing_command", &[fault]);
}

/// conmon reads stderr once: what comes later is lost.
#[test]
fn row100_second_write_to_stderr_is_noticed() {
    require!(root);
    let fault = after("test $code = 0 || echo and more >&2", "a second write");
    assert_noticed("contract_cli::row6_stderr_is_the_bare_message_in_one_write", &[fault]);
}

/// It blocked containerd for as long as the helper lived.
#[test]
fn row100_helper_that_keeps_stdout_after_start_is_noticed() {
    require!(root);
    let fault = after("test \"$command\" = start && sleep 30 &", HELD).in_vain();
    assert_noticed("start::row54_after_start_nobody_holds_its_stdout_and_stderr", &[fault]);
}

/// conmon's one read of stderr would not return.
#[test]
fn row100_helper_that_keeps_stderr_after_a_failed_create_is_noticed() {
    require!(root);
    let script = "test \"$command\" = create && test $code != 0 && sleep 30 >/dev/null &";
    let fault = after(script, HELD).in_vain();
    let test = "create_failure::row39_after_a_failed_create_nobody_holds_stdout_and_stderr";
    assert_noticed(test, &[fault]);
}

/// With a terminal, containerd reads both to their end; without one, they would not end with the container.
#[test]
fn row100_helper_that_keeps_stdio_after_create_is_noticed() {
    require!(root);
    let held = |script| after(script, HELD).in_vain();
    let faults = [
        held("test \"$command\" = create && sleep 30 2>/dev/null &"),
        held("test \"$command\" = create && sleep 30 >/dev/null &"),
    ];
    let test = "console::row45_with_a_terminal_init_does_not_hold_the_runtimes_stdio";
    assert_noticed(test, &faults);
    assert_noticed("stdio::row46_stdio_of_create_is_the_containers_same_objects", &faults);
}

/// Descriptors of the caller; here the runtime is told to keep them.
#[test]
fn row100_descriptor_that_reaches_the_container_is_noticed() {
    require!(root);
    let create = "test \"$command\" = create && set -- \"$@\" --preserve-fds 18";
    let exec = "test \"$command\" = exec && for word; do
            shift; set -- \"$@\" \"$word\"; test \"$word\" != exec || set -- \"$@\" --preserve-fds 18
        done";
    let faults = [before(create, "\"/etc\""), before(exec, "-> /etc")];
    assert_noticed("contract_env::row20_inherited_descriptors_do_not_reach_the_container", &faults);
}

/// The same for one that the runtime itself has opened: a way out to the host until start.
#[test]
fn row100_directory_that_a_created_init_holds_is_noticed() {
    require!(root);
    let script = "test \"$command\" = create && exec 3</ && set -- \"$@\" --preserve-fds 1";
    let faults = [before(script, " 3: \"/\", ")];
    assert_noticed("contract_env::row20_created_init_holds_only_stdio_and_the_gate", &faults);
}

/// conmon's and buildkit's own variables.
#[test]
fn row100_variable_of_the_caller_in_the_container_is_noticed() {
    require!(root);
    let create = "test \"$command\" = create &&
        sed -i \"s|\\\"TERM=xterm\\\"|&, \\\"TTRPC_ADDRESS=$TTRPC_ADDRESS\\\"|\" \"$bundle/config.json\"";
    let exec = "test \"$command\" = exec && for word; do
            shift; set -- \"$@\" \"$word\"
            test \"$word\" != exec || set -- \"$@\" --env \"TTRPC_ADDRESS=$TTRPC_ADDRESS\"
        done";
    let leaked = "\"TTRPC_ADDRESS=/run/ttrpc\"]\n right: ";
    let faults = [before(create, leaked), before(exec, leaked)];
    assert_noticed("contract_env::row19_no_variable_of_the_caller_reaches_the_container", &faults);
}

/// conmon would kill its own process group. The process lets setsid(2) fall under the table.
#[test]
fn row100_process_without_a_session_of_its_own_is_noticed() {
    require!(root, program("strace"));
    // With -D the caller waits for the runtime and not for strace, which ends with the process.
    let traced = |command: &str| {
        let strace = "-D -f -qq -o /dev/null -e trace=setsid -e inject=setsid:retval=1";
        let script = format!(
            "test \"$command\" = {command} && set -- {strace} \"$runtime\" \"$@\" && runtime=strace"
        );
        [before(script, "\n  left: (Some(")]
    };
    assert_noticed("lifecycle::row33_init_leads_its_session_and_process_group", &traced("create"));
    let test = "exec::row33_exec_process_leads_its_session_and_process_group";
    assert_noticed(test, &traced("exec"));
}

/// containerd and CRI-O would go on killing. containerd reads the log, CRI-O stderr.
#[test]
fn row100_wrong_text_of_kill_is_noticed() {
    require!(root);
    let stderr = "test \"$command\" = kill && {
            text=$(\"$runtime\" \"$@\" 2>&1 >/dev/null); code=$?
            echo \"$text\" | sed 's/not running/gone/' >&2; exit $code
        }";
    let log = "test \"$command\" = kill && sed -i 's/not running/gone/' \"$log\"";
    let faults = [
        before(stderr, "no \"container not running\" in the error of"),
        after(log, "no \"container not running\" in the log of"),
    ];
    assert_noticed("kill::row76_kill_of_a_stopped_container", &faults);
}

/// docker build and kubectl exec would show the wrong code.
#[test]
fn row100_lost_exit_code_is_noticed() {
    require!(root);
    let script = "test \"$command\" = exec && test $code != 0 && code=1";
    let fault = after(script, "\n  left: 1\n");
    assert_noticed("exec::row66_exec_exits_with_the_code_of_the_process", &[fault]);
}

/// CRI-O parses stdout and stderr together.
#[test]
fn row100_features_with_noise_is_noticed() {
    require!(root);
    let script = "test \"$command\" = features && echo probing >&2";
    let fault = before(script, "\n  left: \"probing\\n\"\n");
    assert_noticed("contract_info::row24_features_is_pure_json_with_and_without_debug", &[fault]);
}

/// The kubelet would offer what does not work, or not offer what does.
#[test]
fn row100_features_that_are_not_so_is_noticed() {
    require!(root);
    let idmap = "test \"$command\" = features && {
            \"$runtime\" \"$@\" | tr -d '\\n' | sed 's/\\(\"idmap\": *{ *\"enabled\": *\\)true/\\1false/'
            exit
        }";
    let fault = before(idmap, "idmap is listed if and only if it works");
    assert_noticed("contract_info::row27_features_lists_idmap_if_it_works", &[fault]);
    let user = "test \"$command\" = features && {
            \"$runtime\" \"$@\" | sed 's/\"user\"/\"nobody\"/'
            exit
        }";
    let fault = before(user, "a user namespace is listed if and only if it can be made");
    assert_noticed("contract_info::row27_features_lists_user_namespaces_if_they_work", &[fault]);
}

/// buildkit opens bundle/config.json and resolves users below rootfs, wherever it is itself.
#[test]
fn row100_relative_paths_in_the_state_are_noticed() {
    require!(root);
    let bundle = "test \"$command\" = state && {
            \"$runtime\" \"$@\" | sed 's|\"bundle\": *\"[^\"]*\"|\"bundle\": \"bundle\"|'
            exit
        }";
    let rootfs = "test \"$command\" = state && {
            \"$runtime\" \"$@\" | sed 's|\"rootfs\": *\"[^\"]*\"|\"rootfs\": \"rootfs\"|'
            exit
        }";
    let faults = [
        before(bundle, "\n  left: String(\"bundle\")\n"),
        before(rootfs, "\n  left: String(\"rootfs\")\n"),
    ];
    assert_noticed("state::row72_state_has_every_field_with_absolute_paths", &faults);
}

/// containerd would wait for the terminal for ever. The container gets none here, and the socket nothing.
#[test]
fn row100_console_that_is_not_sent_is_noticed() {
    require!(root);
    let script = "test \"$command\" = create && {
            sed -i 's/\"terminal\": true/\"terminal\": false/' \"$bundle/config.json\"
            for word; do
                shift
                case $word in --console-socket) ;; */fd.sock) ;; *) set -- \"$@\" \"$word\" ;; esac
            done
        }";
    let fault = before(script, "nobody has connected").in_vain();
    assert_noticed("console::row43_console_socket_gets_one_message_with_one_descriptor", &[fault]);
}

/// The id would be taken for ever.
#[test]
fn row100_left_state_directory_is_noticed() {
    require!(root);
    let script = "test \"$command\" = delete && mkdir -p \"$root/web\"";
    let fault = after(script, "\"state directory of web\"");
    assert_noticed("delete::row80_delete_of_a_stopped_container", &[fault]);
}

/// containerd shows what its clean-up has said, or ends with its code.
#[test]
fn row100_delete_force_of_an_unknown_id_that_is_not_silent_is_noticed() {
    require!(root);
    let text = "container does not exist";
    let stderr = "test \"$command\" = delete && echo container does not exist >&2";
    let log = "test \"$command\" = delete &&
        echo '{\"level\":\"error\",\"msg\":\"container does not exist\"}' >> \"$log\"";
    let code = "test \"$command\" = delete && code=1";
    let faults = [after(stderr, text), after(log, text), after(code, "exit status: 1")];
    assert_noticed("delete::row81_delete_force_of_an_unknown_id_is_silent_success", &faults);
}

/// An engine would wait for ever for a process that is not its child.
#[test]
fn row100_runtime_that_stays_after_create_is_noticed() {
    require!(root);
    let script = "test \"$command\" = create && sleep 6 >/dev/null 2>&1 </dev/null &";
    let fault = after(script, "\n  left: [Process(");
    assert_noticed("lifecycle::row31_nothing_but_init_stays_after_create", &[fault]);
}
