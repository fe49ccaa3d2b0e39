//! The conditions under which a prune may have to work, and what may obstruct it.
//!
//! Guarantees: each case checks what must be gone and what must be left. In every case, the report must match
//! what is gone. In the cases of `room`, what it says of free space must match what the file system says.

mod acl;
mod exchange;
mod limits;
mod mounts;
mod room;
mod signals;
mod subvolumes;
mod trial;

use crate::torture::control::try_all;
use crate::torture::row::Row;
use crate::torture::stage::Stage;

/// Runs all cases. Each group has a row.
///
/// # Errors
///
/// If a case cannot run.
pub(crate) fn rows(stage: &Stage) -> anyhow::Result<Vec<Row>> {
    let groups = [
        ("mounts and permissions", mounts::CASES),
        ("subvolumes", subvolumes::CASES),
        ("ACLs and attributes", acl::CASES),
        ("room", room::CASES),
        ("limits and outputs", limits::CASES),
        ("exchanges", exchange::CASES),
        ("signals", signals::CASES),
    ];
    let mut rows = Vec::new();
    for (name, cases) in groups {
        let mut row = Row::new("surroundings", "several", name);
        try_all(cases, 3, &mut row, |case| trial::run(stage, case))?;
        rows.push(row);
    }
    Ok(rows)
}
