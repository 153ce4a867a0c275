//! The pipeline room.

mod settings;

pub use settings::{OnReject, Settings};
