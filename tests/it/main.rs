//! Tests of the real daemon with real peers.

#![allow(clippy::disallowed_methods, reason = "tests wait for other processes")]
#![allow(clippy::string_slice, reason = "a test may panic on odd text")]
#![allow(unreachable_pub, reason = "the support module is shared with the library's own tests")]

mod allocator;
mod attachment_readers;
mod author_readers;
mod backup;
mod bad_input;
mod bdat;
mod check_config;
mod commands;
mod crash;
mod credentials;
mod dist;
mod dkim;
mod dmarc;
mod dns_servers;
mod docs;
mod domains;
mod event_log;
mod faults;
mod gateways;
mod history;
mod identities;
mod init;
mod journaling;
mod json_lists;
mod limits;
mod logins;
mod long_lines;
mod mail_log;
mod mailbox_rules;
mod nothing_vanishes;
mod organizations;
mod outbound;
mod overload;
mod postfix;
mod power;
mod queue_bounds;
mod queue_faults;
mod queue_kill;
mod queue_operator;
mod queue_peers;
mod routes;
mod rules;
mod scanners;
mod schemas;
mod sending_limits;
mod sent_on;
mod service;
mod smtp_client;
mod spf_suite;
mod submission;
mod support;
mod swaks;
mod tidy;
mod traces;
mod utf8;
