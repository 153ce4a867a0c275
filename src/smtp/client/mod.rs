//! The SMTP client's side.

mod tls;

pub use tls::TlsDemand;
