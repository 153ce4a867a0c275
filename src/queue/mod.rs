//! Mail on its way out: where it goes next, and how safely.

pub mod hop;
pub mod pki;
pub mod route;

#[cfg(any(test, fuzzing))]
pub mod fuzz;
