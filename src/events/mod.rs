//! The events room.

mod settings;

pub use settings::Settings;
