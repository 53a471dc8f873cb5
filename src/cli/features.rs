//! `features` and `--version`: what this build can do, whatever the host.

use serde_json::{Value, json};

use crate::plan::check::{OCI_VERSION_MAX, OCI_VERSION_MIN};
use crate::plan::namespaces::{KINDS, Kind};
use crate::plan::{annotations, caps, memory_policy, options};
use crate::seccomp;

const COMMIT: Option<&str> = option_env!("ONGGI_COMMIT");

/// `onggi features`
pub fn features() -> anyhow::Result<u8> {
    super::print(&format!("{:#}\n", document()))?;
    Ok(0)
}

/// The document of features.md, spec 1.3: only what is implemented.
fn document() -> Value {
    let mount_options: Vec<&str> = options::TABLE.iter().map(|(name, _)| *name).collect();
    let namespaces = KINDS.map(Kind::name);
    json!({
        "ociVersionMin": OCI_VERSION_MIN,
        "ociVersionMax": OCI_VERSION_MAX,
        "hooks": [
            "prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"
        ],
        "mountOptions": mount_options,
        "linux": {
            "namespaces": namespaces,
            "capabilities": caps::names(u64::MAX),
            "cgroup": {
                "v1": true, "v2": true, "systemd": true, "systemdUser": true, "rdma": true
            },
            "seccomp": {
                "enabled": true,
                "actions": seccomp::known_actions(),
                "operators": seccomp::known_operators(),
                "archs": seccomp::known_archs(),
                "knownFlags": seccomp::known_flags(),
                "supportedFlags": seccomp::known_flags(),
            },
            "apparmor": {"enabled": true},
            "selinux": {"enabled": true},
            "intelRdt": {"enabled": true, "schemata": true, "monitoring": true},
            "memoryPolicy": {
                "modes": memory_policy::MODES.map(|(name, _, _)| name),
                "flags": memory_policy::FLAGS.map(|(name, _, _)| name),
            },
            "mountExtensions": {"idmap": {"enabled": true}},
            "netDevices": {"enabled": true},
        },
        "annotations": {
            "dev.onggi.version": env!("CARGO_PKG_VERSION"),
            "org.opencontainers.runc.checkpoint.enabled": "false",
        },
        "potentiallyUnsafeConfigAnnotations": annotations::KNOWN,
    })
}

/// Three lines, of which only the first has the word "version": docker keeps the last such line.
#[must_use]
pub fn version() -> String {
    format!(
        "onggi version {}\ncommit: {}\nspec: {OCI_VERSION_MAX}\n",
        env!("CARGO_PKG_VERSION"),
        COMMIT.unwrap_or("unknown")
    )
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a golden file of the repository")]
mod tests {
    use std::path::Path;

    use serde_json::Value;

    use super::document;

    /// The document is part of the interface: engines decide by it, so a change must be seen. And what
    /// features.md asks for: no null, both versions, an order that does not change. (Namespaces and
    /// annotations are tried by real containers: `every_name_in_features_is_recognized`.)
    #[test]
    fn golden_features_of_this_build() {
        let mut fixed = document();
        for list in ["/linux/namespaces", "/annotations", "/potentiallyUnsafeConfigAnnotations"] {
            if let Some(value) = fixed.pointer_mut(list) {
                *value = Value::Null;
            }
        }
        let text = format!("{fixed:#}\n");
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli/testdata/features.json");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            assert!(std::fs::write(&file, &text).is_ok());
        }
        assert_eq!(text, std::fs::read_to_string(&file).unwrap_or_default(), "see UPDATE_GOLDEN");
        let text = document().to_string();
        assert!(!text.contains("null"));
        let document = document();
        let version = |key: &str| document[key].as_str().unwrap_or_default().to_owned();
        assert!(
            version("ociVersionMin") == "1.0.0" && version("ociVersionMax").starts_with("1.3.")
        );
        let known =
            ["ociVersionMin", "ociVersionMax", "hooks", "mountOptions", "linux", "annotations"];
        let linux = [
            "namespaces",
            "capabilities",
            "cgroup",
            "seccomp",
            "apparmor",
            "selinux",
            "intelRdt",
            "memoryPolicy",
            "mountExtensions",
            "netDevices",
        ];
        let members = |value: &Value| -> Vec<String> {
            value.as_object().into_iter().flatten().map(|(key, _)| key.clone()).collect()
        };
        for key in members(&document) {
            assert!(known.contains(&&*key) || key == "potentiallyUnsafeConfigAnnotations", "{key}");
        }
        for key in members(&document["linux"]) {
            assert!(linux.contains(&&*key), "{key} is no member of spec 1.3");
        }
        let annotations = document["annotations"].as_object().into_iter().flatten();
        assert!(annotations.map(|(_, value)| value).all(Value::is_string));
    }
}
