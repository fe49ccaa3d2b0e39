//! Records for tests.
//!
//! Guarantees: each is complete, so a test changes only what it checks.

use crate::bench::environment::Environment;
use crate::bench::record::{ContenderRecord, Record};

/// A machine.
pub(crate) fn environment() -> Environment {
    Environment {
        processor: "Some CPU".to_owned(),
        cores: 2,
        memory: "8.0 GiB".to_owned(),
        kernel: "6.1".to_owned(),
        disk: "ext4 (relatime) on a virtio disk".to_owned(),
        pruner: "oci-cache 0.1.0".to_owned(),
        tools: vec!["rm: rm 9.1".to_owned()],
    }
}

/// A contender with these wall times.
pub(crate) fn contender(name: &str, wall_seconds: &[f64]) -> ContenderRecord {
    ContenderRecord {
        name: name.to_owned(),
        command: format!("{name} DIR"),
        wall_seconds: wall_seconds.to_vec(),
        ..ContenderRecord::default()
    }
}

/// A record with these contenders.
pub(crate) fn record(name: &str, contenders: Vec<ContenderRecord>) -> Record {
    Record {
        name: name.to_owned(),
        about: "About it.".to_owned(),
        cache: "10 blobs".to_owned(),
        blobs: 10,
        file_system: "ext4".to_owned(),
        date: "2026-01-01".to_owned(),
        load_average: "0.00 0.00 0.00".to_owned(),
        environment: environment(),
        not_measured: None,
        contenders,
    }
}
