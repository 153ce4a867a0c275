//! The journal room.

mod settings;

pub use settings::Settings;
