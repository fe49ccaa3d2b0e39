//! What the fuzz targets share.
//!
//! Guarantees: files are made in temporary directories only.

pub mod fixture;
pub mod memory;
