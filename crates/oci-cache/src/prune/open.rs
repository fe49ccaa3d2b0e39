//! Says which file is open, and in which process.
//!
//! Guarantees: nothing is opened or changed. The process is named if `/proc` tells; to a confined process it does not.

use std::os::fd::AsFd as _;

use crate::cache::inventory::Tree;
use crate::cache::partial::Partial;
use crate::os::processes::process_with;
use crate::os::status::Status;
use crate::prune::sign::Sign;

/// The sign that a process has a blob open.
pub(crate) fn open_blob(tree: &Tree, index: usize) -> Sign {
    let blob = &tree.blobs[index];
    let directory = tree.directory(blob.directory).descriptor.as_fd();
    let status = Status::of_entry(directory, blob.digest.file_name(blob.spelling).as_c_str()).ok();
    Sign::Open { path: tree.path_of(blob), process: status.and_then(|status| process_with(status.id)) }
}

/// The sign that a process has a partial open.
pub(crate) fn open_partial(partial: &Partial) -> Sign {
    let process = partial.files.iter().find_map(|file| process_with(file.status.id));
    Sign::Open { path: partial.path.clone(), process }
}
