//! `linux.resources.cpu`: time (controller cpu) and placement (controller cpuset).

use oci_spec::runtime::LinuxCpu;

use super::super::layout::Side;
use super::super::plan::Write;
use super::Planner;
use crate::error::Code;

const AT: &str = "/linux/resources/cpu";
const SHARES: &str = "/linux/resources/cpu/shares";
const QUOTA: &str = "/linux/resources/cpu/quota";
const PERIOD: &str = "/linux/resources/cpu/period";
const BURST: &str = "/linux/resources/cpu/burst";
const IDLE: &str = "/linux/resources/cpu/idle";
const RT_RUNTIME: &str = "/linux/resources/cpu/realtimeRuntime";
const RT_PERIOD: &str = "/linux/resources/cpu/realtimePeriod";
const CPUS: &str = "/linux/resources/cpu/cpus";
const MEMS: &str = "/linux/resources/cpu/mems";

/// `cpu.weight` for `cpu.shares`: 2 → 1, 1024 → 100 (the two defaults), 262144 → 10000, and a curve
/// through them in between; 10^((l² + 125 l − 126) / 612), rounded up, with l = log2(shares). runc
/// since 1.3.2 and crun since 1.23 use the same; the straight line before made 1024 a mere 39.
#[must_use]
pub(in super::super) fn weight_of(shares: u64) -> u64 {
    if shares <= 2 {
        return 1;
    }
    if shares >= 262_144 {
        return 10_000;
    }
    #[allow(clippy::cast_precision_loss, reason = "below 2^18")]
    let log = (shares as f64).log2();
    let weight = 10f64.powf((log * log + 125.0 * log - 126.0) / 612.0).ceil();
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 1 to 10000")]
    let weight = weight as u64;
    weight.clamp(1, 10_000)
}

impl Planner<'_> {
    pub(super) fn cpu(&mut self, cpu: &LinuxCpu) {
        let shares = cpu.shares().filter(|value| *value != 0);
        let quota = cpu.quota().filter(|value| *value != 0);
        let period = cpu.period().filter(|value| *value != 0);
        let real_time = [
            (cpu.realtime_period().filter(|value| *value != 0).map(|v| v.to_string()), RT_PERIOD),
            (cpu.realtime_runtime().filter(|value| *value != 0).map(|v| v.to_string()), RT_RUNTIME),
        ];
        let (burst, idle) = (cpu.burst(), cpu.idle());
        let any_time = quota.is_some() || period.is_some() || burst.is_some();
        let any_real_time = real_time.iter().any(|(value, _)| value.is_some());
        if shares.is_none() && idle.is_none() && !any_time && !any_real_time {
            return;
        }
        if let (Some(burst), Some(quota @ 1..)) = (burst, quota) {
            if i128::from(burst) > i128::from(quota) {
                self.findings.problem(
                    Code::E_CGROUP_VALUE,
                    BURST,
                    format!("{burst} is more than the quota, {quota}"),
                );
            }
        }
        if let Some(idle) = idle.filter(|value| !matches!(value, 0 | 1)) {
            self.findings.problem(Code::E_CGROUP_VALUE, IDLE, format!("{idle} is neither 0 nor 1"));
        }
        let Some(side) = self.side("cpu", AT) else { return };
        for ((value, at), file) in
            real_time.into_iter().zip(["cpu.rt_period_us", "cpu.rt_runtime_us"])
        {
            if let Some(value) = value {
                if self.v1_only(side, at) {
                    self.put(Write::new("cpu", file, value, at));
                }
            }
        }
        self.cpu_share(side, shares, idle);
        match side {
            Side::V1 => {
                self.cpu_number("cpu.cfs_period_us", period, PERIOD);
                self.cpu_number("cpu.cfs_quota_us", quota.map(|quota| quota.max(-1)), QUOTA);
                self.cpu_number("cpu.cfs_burst_us", burst, BURST);
            }
            Side::V2 => {
                let quota_text = quota.filter(|quota| *quota > 0).map(|quota| quota.to_string());
                let quota_text = quota_text.unwrap_or_else(|| "max".to_owned());
                match (quota, period) {
                    (None, None) => {}
                    (Some(_), None) => self.cpu_number("cpu.max", Some(quota_text), QUOTA),
                    (_, Some(period)) => {
                        let at = if quota.is_some() { QUOTA } else { PERIOD };
                        self.cpu_number("cpu.max", Some(format!("{quota_text} {period}")), at);
                    }
                }
                self.cpu_number("cpu.max.burst", burst, BURST);
            }
        }
    }

    /// An idle group refuses any weight (EINVAL), so the end of that comes first.
    fn cpu_share(&mut self, side: Side, shares: Option<u64>, idle: Option<i64>) {
        self.cpu_number("cpu.idle", idle, IDLE);
        match side {
            Side::V1 => self.cpu_number("cpu.shares", shares, SHARES),
            Side::V2 => self.cpu_number("cpu.weight", shares.map(weight_of), SHARES),
        }
    }

    fn cpu_number(&mut self, file: &str, value: Option<impl std::fmt::Display>, at: &str) {
        if let Some(value) = value {
            self.put(Write::new("cpu", file, value, at));
        }
    }

    /// The files have the same names on both sides.
    pub(super) fn cpuset(&mut self, cpu: &LinuxCpu) {
        for (value, file, at) in
            [(cpu.cpus(), "cpuset.cpus", CPUS), (cpu.mems(), "cpuset.mems", MEMS)]
        {
            let Some(value) = value.as_deref().filter(|value| !value.is_empty()) else { continue };
            if let Some(bad) =
                value.chars().find(|one| !one.is_ascii_digit() && !",- ".contains(*one))
            {
                self.findings.problem(
                    Code::E_CGROUP_VALUE,
                    at,
                    format!("{bad:?} in a list of numbers and ranges"),
                );
            }
            if self.side("cpuset", at).is_some() {
                self.put(Write::new("cpuset", file, value, at));
            }
        }
    }
}
