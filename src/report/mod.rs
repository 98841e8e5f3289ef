//! What runs found out: tables, figures and statistics, read from run directories alone.

pub mod figure;
pub mod svg;
