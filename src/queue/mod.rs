//! Mail on its way out: where it goes next, and how safely.

mod hop;
pub mod pki;
pub mod route;

pub use hop::Hop;

#[cfg(any(test, fuzzing))]
pub mod fuzz;
