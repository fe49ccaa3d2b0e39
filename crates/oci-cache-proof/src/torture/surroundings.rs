//! Where a prune may have to work, and what may be in its way.
//!
//! Guarantees: each case says what must have gone and what must have stayed, and whatever the case, what
//! is reported is what went.

mod exchange;
mod limits;
mod mounts;
mod signals;
mod trial;

use crate::torture::control::try_all;
use crate::torture::row::Row;
use crate::torture::stage::Stage;

/// Tries every case, a row for each group of them.
///
/// # Errors
///
/// If a case cannot be carried out.
pub(crate) fn rows(stage: &Stage) -> anyhow::Result<Vec<Row>> {
    let groups = [
        ("mounts and permissions", mounts::CASES),
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
