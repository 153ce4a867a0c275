//! Tests of the client: against scripted peers over in-memory streams, under a clock that stands
//! still until nobody can go on, and against our own listener over loopback.

mod dialogues;
mod failures;
mod peer;
mod reply;
mod tls;
