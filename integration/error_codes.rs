//! docs/errors.md: every failure has a stable name, which the JSON log tells beside the message.

use serde_json::json;

use crate::support::{Bundle, Output};

/// The one line of a failing command.
#[track_caller]
fn line(output: &Output) -> serde_json::Value {
    let log = output.log();
    assert_eq!(log.len(), 1, "{output}");
    log[0].clone()
}

#[test]
fn a_failure_has_its_code_in_the_json_log() {
    require!(root);
    let bundle = Bundle::with(|config| {
        config.bind("/no/such/source", "/mnt", &["rbind"]).set("/hostname", "web")
    });
    let failed = line(&bundle.container("web").create());
    assert_eq!(failed["code"], "E_MOUNT_SOURCE_MISSING", "{failed}");
    let failed = line(&bundle.onggi(&["state", "nobody"]).run());
    assert_eq!(failed["code"], "E_NOT_FOUND", "{failed}");
    assert_eq!(failed["msg"], "container does not exist", "engines look for the bare text");
}

/// A failure of the container's own process is named by it, not by its parent.
#[test]
fn a_failure_inside_the_container_has_its_code() {
    require!(root);
    let bundle = Bundle::with(|config| config.args(&["/no/such/program"]));
    assert_eq!(line(&bundle.container("web").create())["code"], "E_PROGRAM");
    let bundle = Bundle::with(|config| config.set("/linux/sysctl", json!({"net.core.no": "1"})));
    let failed = line(&bundle.container("web").create());
    assert_eq!(failed["code"], "E_SYSCTL", "{failed}");
}

#[test]
fn every_problem_of_a_config_has_its_code_and_pointer() {
    require!(root);
    let bundle = Bundle::with(|config| {
        config.set("/process/cwd", "relative").set("/process/oomScoreAdj", 2000)
    });
    let failed = line(&bundle.container("web").create());
    let problems = failed["problems"].as_array().unwrap();
    for problem in [
        json!({"code": "E_NOT_ABSOLUTE", "pointer": "/process/cwd"}),
        json!({"code": "E_OOM_SCORE_ADJ_VALUE", "pointer": "/process/oomScoreAdj"}),
    ] {
        assert!(problems.contains(&problem), "{failed}");
    }
}

/// podman reads the whole log as one object, so what is odd about a config that fails is told in the
/// line of the failure.
#[test]
fn on_failure_warnings_are_keys_of_the_one_line() {
    require!(root);
    let bundle = Bundle::with(|config| {
        config
            .set("/ociVersion", "1.9.0")
            .set("/process/env", json!(["PATH=/bin", "odd"]))
            .args(&["/no/such/program"])
    });
    let failed = line(&bundle.container("web").create());
    let codes: Vec<_> =
        failed["warnings"].as_array().unwrap().iter().map(|one| one["code"].clone()).collect();
    assert_eq!(codes, ["W_OCI_VERSION", "W_ENV"], "{failed}");
    assert_eq!(failed["level"], "error");
}
