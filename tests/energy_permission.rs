//! Counters that only root may read, as they are on most machines, read by another user. Alone in its program: the user is
//! that of the whole process.

#![allow(clippy::unwrap_used)] // A panic is how a test fails.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use dbp_host::energy::config::{Config, Places};
use dbp_host::energy::meter::Meter;
use dbp_host::energy::rapl::{Rapl, find};
use dbp_host::energy::sensor::{Polled, Sensor};
use nix::unistd::{Uid, seteuid};

#[path = "common/machine.rs"]
mod machine;
use machine::{Powercap, Proc};

#[test]
fn a_forbidden_counter_is_said_and_the_model_takes_its_place() {
    let (powercap, proc) = (Powercap::new(), Proc::new("AMD EPYC 7763 64-Core Processor"));
    powercap.zone("intel-rapl:0", "package-0", 5_000_000_000).zone("intel-rapl:1", "package-1", 90_000_000_000);
    for folder in [powercap.path(), proc.path()] {
        fs::set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
    }
    let mut while_allowed = Rapl::new(&find(powercap.path())).unwrap();
    assert_eq!(while_allowed.poll(Duration::ZERO), Polled::Begins);
    fs::set_permissions(powercap.counter("intel-rapl:1"), Permissions::from_mode(0o400)).unwrap();
    powercap.set("intel-rapl:0", 5_050_000_000);
    let root = Uid::effective().is_root();
    if root {
        seteuid(Uid::from_raw(65534)).unwrap();
    } else {
        fs::set_permissions(powercap.counter("intel-rapl:1"), Permissions::from_mode(0o000)).unwrap();
    }

    let Polled::Missed(why) = while_allowed.poll(Duration::from_secs(1)) else { panic!("it was read") };
    assert!(why.ends_with("intel-rapl:1/energy_uj: permission denied"), "{why}");
    let found = find(powercap.path());
    assert_eq!((found.readable.len(), found.refused.len()), (1, 1));
    assert!(Rapl::new(&found).is_none(), "one of two packages is not the processors' energy");
    let mut config = Config::new(Places { powercap: powercap.path().into(), proc: proc.path().into(), nvml: None });
    config.interval = Duration::from_secs(60);
    let meter = Meter::start(&config, None);
    assert!(meter.machine().problems[0].contains("permission denied"), "{:?}", meter.machine().problems);
    let reading = meter.stop();
    assert_eq!(reading.totals.cpu.parts[0].source, "560 W × (0.1 + 0.9 load³): 2 × AMD EPYC 7763");

    if root {
        seteuid(Uid::from_raw(0)).unwrap();
    }
}
