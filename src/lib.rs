pub mod libtorch;
pub mod nn;
pub mod random;
pub mod train;
