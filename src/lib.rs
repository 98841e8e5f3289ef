pub mod host;
pub mod libtorch;
pub mod random;
