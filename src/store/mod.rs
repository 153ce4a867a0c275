//! The store room.

mod settings;

pub use settings::Settings;
