//! `linux.resources.blockIO`: controller blkio on v1, io on v2.

use oci_spec::runtime::{LinuxBlockIo, LinuxThrottleDevice, LinuxWeightDevice};

use super::super::layout::Side;
use super::super::plan::Write;
use super::Planner;
use crate::error::Code;

const AT: &str = "/linux/resources/blockIO";

/// One of the config's four lists: its name, its v1 file, its key in v2's `io.max`.
type Throttle<'a> = (&'a Option<Vec<LinuxThrottleDevice>>, &'a str, &'a str, &'a str);

impl Planner<'_> {
    pub(super) fn block_io(&mut self, io: &LinuxBlockIo) {
        let weight = io.weight().filter(|weight| *weight != 0);
        let leaf = io.leaf_weight().filter(|weight| *weight != 0);
        let devices = io.weight_device().as_deref().unwrap_or_default();
        let throttles: [Throttle<'_>; 4] = [
            (io.throttle_read_bps_device(), "throttleReadBpsDevice", "read_bps", "rbps"),
            (io.throttle_write_bps_device(), "throttleWriteBpsDevice", "write_bps", "wbps"),
            (io.throttle_read_iops_device(), "throttleReadIOPSDevice", "read_iops", "riops"),
            (io.throttle_write_iops_device(), "throttleWriteIOPSDevice", "write_iops", "wiops"),
        ];
        let throttled =
            throttles.iter().any(|(list, ..)| list.as_ref().is_some_and(|l| !l.is_empty()));
        if weight.is_none() && leaf.is_none() && devices.is_empty() && !throttled {
            return;
        }
        // The two names are of one controller, which is on one side only.
        let controller = if self.layout.side("blkio").is_some() { "blkio" } else { "io" };
        let Some(side) = self.side(controller, AT) else { return };
        if let Some(weight) = weight {
            self.weight(side, None, weight, &format!("{AT}/weight"));
        }
        if let Some(leaf) = leaf {
            self.leaf_weight(side, "", leaf, &format!("{AT}/leafWeight"));
        }
        for (index, device) in devices.iter().enumerate() {
            self.weight_device(side, device, &format!("{AT}/weightDevice/{index}"));
        }
        for (list, name, v1, v2) in throttles {
            for (index, device) in list.iter().flatten().enumerate() {
                let at = format!("{AT}/{name}/{index}");
                let (number, rate) = (device_number(device.major(), device.minor()), device.rate());
                self.put(match side {
                    Side::V1 => {
                        let file = format!("blkio.throttle.{v1}_device");
                        Write::new("blkio", &file, format!("{number} {rate}"), &at)
                    }
                    // 0 lifts the limit on v1, and is refused on v2.
                    Side::V2 if rate == 0 => {
                        Write::new("io", "io.max", format!("{number} {v2}=max"), &at)
                    }
                    Side::V2 => Write::new("io", "io.max", format!("{number} {v2}={rate}"), &at),
                });
            }
        }
    }

    fn weight_device(&mut self, side: Side, device: &LinuxWeightDevice, at: &str) {
        let number = device_number(device.major(), device.minor());
        if let Some(weight) = device.weight().filter(|weight| *weight != 0) {
            self.weight(side, Some(&number), weight, &format!("{at}/weight"));
        }
        if let Some(leaf) = device.leaf_weight().filter(|weight| *weight != 0) {
            self.leaf_weight(side, &number, leaf, &format!("{at}/leafWeight"));
        }
    }

    /// BFQ's own file where it is loaded; else CFQ's on v1 (gone in Linux 5.0), iocost's on v2, whose
    /// scale of 1 to 10000 the config's 10 to 1000 is stretched to.
    fn weight(&mut self, side: Side, device: Option<&str>, weight: u16, at: &str) {
        if !(10..=1000).contains(&weight) {
            self.findings.problem(
                Code::E_CGROUP_VALUE,
                at,
                format!("{weight} is not from 10 to 1000"),
            );
            return;
        }
        let stretched = 1 + (u32::from(weight) - 10) * 9999 / 990;
        let (value, stretched) = match device {
            None => (weight.to_string(), stretched.to_string()),
            Some(device) => (format!("{device} {weight}"), format!("{device} {stretched}")),
        };
        let (controller, file, or) = match (side, device) {
            (Side::V1, None) => ("blkio", "blkio.bfq.weight", ("blkio.weight", value.clone())),
            (Side::V1, Some(_)) => {
                ("blkio", "blkio.bfq.weight_device", ("blkio.weight_device", value.clone()))
            }
            (Side::V2, _) => ("io", "io.bfq.weight", ("io.weight", stretched)),
        };
        let mut write = Write::new(controller, file, value, at);
        write.or = Some((or.0.to_owned(), or.1));
        self.put(write);
    }

    fn leaf_weight(&mut self, side: Side, device: &str, weight: u16, at: &str) {
        if !self.v1_only(side, at) {
            return;
        }
        self.put(if device.is_empty() {
            Write::new("blkio", "blkio.leaf_weight", weight, at)
        } else {
            Write::new("blkio", "blkio.leaf_weight_device", format!("{device} {weight}"), at)
        });
    }
}

fn device_number(major: i64, minor: i64) -> String {
    format!("{major}:{minor}")
}
