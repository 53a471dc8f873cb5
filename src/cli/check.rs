//! `check`: what create would say of a bundle, and why, with nothing made.

use std::path::{Path, PathBuf};

use clap::ArgMatches;
use serde_json::Value;

use super::host_report::{self, Report};
use super::update::set;
use super::{Globals, args, print};
use crate::cgroup;
use crate::error::{Code, Error, Finding, Result};
use crate::host::Host;
use crate::plan::{self, Options};
use crate::spawn::listener::Agent;
use crate::spawn::{prepare, trial};
use crate::{bundle, sys};

/// What came of a configuration.
#[derive(Debug, Default)]
struct Verdict {
    errors: Vec<Finding>,
    warnings: Vec<Finding>,
}

/// `onggi check`
pub fn check(globals: &Globals, matches: &ArgMatches) -> anyhow::Result<u8> {
    let format = args::last(matches, "format").map(|text| text.to_string_lossy().into_owned());
    let as_json = match format.as_deref() {
        None | Some("text") => false,
        Some("json") => true,
        Some(other) => {
            let text = format!("invalid format option: {other:?}");
            return Err(Error::text(Code::E_OPTION, text).into());
        }
    };
    let file = matches.get_one::<String>("file").map(PathBuf::from);
    let with_host = args::is_on(matches, "host");
    let only_host = with_host && file.is_none() && args::last(matches, "bundle").is_none();
    let report = if with_host { Some(host_report::gather()?) } else { None };
    if only_host {
        let report = report.unwrap_or_default();
        print(&if as_json { format!("{:#}\n", report.json()) } else { report.text() })?;
        return Ok(u8::from(!report.is_enough()));
    }
    let config = place(matches, file)?;
    let mut verdict = Verdict::default();
    if let Err(error) = examine(globals, &config, &mut verdict) {
        let findings = error.findings();
        verdict.errors.extend(findings.problems);
        verdict.warnings.extend(findings.warnings);
    }
    let told = if as_json {
        format!("{:#}\n", verdict.json(&config, report.as_ref()))
    } else {
        verdict.text(&config) + &report.map(|report| report.text()).unwrap_or_default()
    };
    print(&told)?;
    Ok(u8::from(!verdict.errors.is_empty()))
}

/// The configuration's absolute path: FILE, or config.json of the bundle.
fn place(matches: &ArgMatches, file: Option<PathBuf>) -> Result<PathBuf> {
    let bundle = args::path(matches, "bundle")?;
    match (bundle, file) {
        (Some(bundle), file) => Ok(bundle.join(file.unwrap_or_else(|| "config.json".into()))),
        (None, file) => bundle::absolute(&file.unwrap_or_else(|| "config.json".into())),
    }
}

/// The same reading, facts, plan and preparation as create's; then the trials.
fn examine(globals: &Globals, config: &Path, verdict: &mut Verdict) -> Result<()> {
    let (spec, warnings) = bundle::config(&bundle::read(config)?)?;
    verdict.warnings.extend(warnings);
    let host = Host::gather()?;
    let terminal = spec.process.as_ref().and_then(oci_spec::runtime::Process::terminal);
    let options = Options {
        cgroup: globals.cgroup_options(&host)?,
        // Whoever creates it will bring what a terminal needs.
        console_socket: terminal == Some(true),
        detach: true,
        ..Options::default()
    };
    let bundle = config.parent().unwrap_or(Path::new("/"));
    let (plan, warnings) = plan::create("check", &spec, bundle, &host, &options)?;
    verdict.warnings.extend(warnings);
    let mut failed: Vec<Error> = prepare::prepare(&plan, &host).err().into_iter().collect();
    // The agent sees a connection that ends without a word.
    failed.extend(plan.listener.as_ref().and_then(|listener| Agent::connect(listener).err()));
    failed.extend(cgroup::probe(&plan.cgroup, &host.cgroups));
    failed.extend(trial::run(&plan, &host)?);
    Error::all(failed).map_or(Ok(()), Err)
}

impl Verdict {
    fn json(&self, config: &Path, report: Option<&Report>) -> Value {
        let mut json = Value::Null;
        set(&mut json, "/config", config.to_string_lossy().into());
        set(&mut json, "/valid", self.errors.is_empty().into());
        for (name, list) in [("/errors", &self.errors), ("/warnings", &self.warnings)] {
            set(&mut json, name, list.iter().map(one).collect());
        }
        if let Some(report) = report {
            set(&mut json, "/host", report.json());
        }
        json
    }

    fn text(&self, config: &Path) -> String {
        let word = if self.errors.is_empty() { "valid" } else { "invalid" };
        let mut text = format!("{}: {word}\n", sys::visible(&config.to_string_lossy()));
        for (kind, list) in [("error", &self.errors), ("warning", &self.warnings)] {
            for finding in list {
                let (code, said) = (finding.code.name(), sys::visible(&finding.to_string()));
                text += &format!("{kind} {code}: {said}\n");
                if !finding.code.hint().is_empty() {
                    text += &format!("    hint: {}\n", finding.code.hint());
                }
            }
        }
        text
    }
}

fn one(finding: &Finding) -> Value {
    let (code, mut json) = (finding.code, Value::Null);
    for (name, text) in [
        ("/code", code.name()),
        ("/about", code.about().name()),
        ("/pointer", &finding.pointer),
        ("/text", &finding.text),
        ("/hint", code.hint()),
    ] {
        set(&mut json, name, text.into());
    }
    json
}
