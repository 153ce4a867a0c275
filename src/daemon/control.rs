//! The daemon's own door for its operator: a Unix socket in the data folder. A request is one line
//! of JSON, and so is its answer.

use std::fs;
use std::io::{self, BufRead, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::changes::Changes;
use super::outbound::MailQueue;
use crate::pipeline::Pipeline;
use crate::queue::{GivenUp, Hurried, WaitingEntry, Wanted};
use crate::smtp::Shared;
use crate::store::{By, MailboxOwner, QueueId};

/// The longest request, in octets: thousands of ids.
const MAX_REQUEST: u64 = 1024 * 1024;
/// How long an operator's program may take for it.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Entries that a line of the log names.
const MAX_LISTED: usize = 20;
/// How long to wait when the system has no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What an operator asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Try entries of the queue now.
    QueueRetry {
        /// Which.
        wanted: Wanted,
    },
    /// Tell what each entry of the queue waits for.
    QueueState,
    /// Give entries of the queue up.
    #[serde(rename_all = "camelCase")]
    QueueDrop {
        /// Which.
        wanted: Wanted,
        /// Whether their senders get a DSN.
        bounces: bool,
    },
    /// Read the configuration again.
    Reload,
    /// Tell whom some network is kept from, for having failed to log in too often.
    LockedUsers,
    /// Forget a user's failed logins.
    Unlock {
        /// Who it is.
        user: MailboxOwner,
        /// Why.
        occasion: UnlockOccasion,
    },
}

/// Why failed logins are to be forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnlockOccasion {
    /// An administrator says so.
    Command,
    /// The user has a new password, with which nobody has failed yet.
    NewPassword,
}

/// What came of forgetting a user's failed logins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UnlockAnswer {
    /// Whether some network was kept from trying.
    pub was_locked: bool,
}

/// Whom some network is kept from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LockedUsers {
    /// The users.
    pub locked: Vec<MailboxOwner>,
}

/// What came of reading the configuration again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReloadAnswer {
    /// What has changed; nothing where there is a problem.
    #[serde(flatten)]
    pub changes: Changes,
    /// What is hardly meant in the new configuration, or wrong around it, without keeping the daemon
    /// from its work.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Why the old configuration goes on: all of the reasons, one a line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// Asks whoever reads the configuration files to do so again.
#[derive(Debug)]
pub struct ReloadRequest {
    /// Who asks.
    pub by: By,
    /// Who waits for what came of it.
    pub answer: oneshot::Sender<ReloadAnswer>,
}

/// What an operator can reach.
pub(super) struct Door {
    pub(super) queue: Arc<MailQueue>,
    pub(super) reloads: mpsc::Sender<ReloadRequest>,
    pub(super) shared: Arc<Shared<Pipeline>>,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// Entries for which it was done.
    pub done: Vec<QueueId>,
    /// Entries that are due now, and what keeps them from being tried.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<WaitingEntry>,
    /// Entries that were being sent at this moment.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub in_flight: Vec<QueueId>,
    /// Entries that are not in the queue.
    pub missed: Vec<QueueId>,
    /// Whether the whole queue is paused, so that nothing of it is tried.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// What went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// Where the socket of a data folder is.
pub fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("run").join("control.sock")
}

/// The socket, for this user alone. One that an ended daemon left is replaced: the data folder's
/// lock says that there is no other daemon.
pub(super) fn bind(data_dir: &Path) -> io::Result<UnixListener> {
    let path = path(data_dir);
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(&path)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves operators until told to stop.
pub(super) async fn run(listener: UnixListener, door: Door, mut stop: watch::Receiver<bool>) {
    let door = Arc::new(door);
    let mut tasks = JoinSet::new();
    while !*stop.borrow() {
        // Accepting and joining can be begun again; nothing is lost.
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(tasks.spawn(serve(stream, Arc::clone(&door)))),
                Err(error) => {
                    tracing::warn!(%error, "the control socket cannot accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = tasks.join_next() => {}
            _ = stop.changed() => {}
        }
    }
}

async fn serve(mut stream: UnixStream, door: Arc<Door>) {
    let by = operator(&stream);
    let (reader, mut writer) = stream.split();
    let mut line = String::new();
    let mut reader = BufReader::new(reader.take(MAX_REQUEST));
    let read = tokio::time::timeout(REQUEST_TIMEOUT, reader.read_line(&mut line)).await;
    if !matches!(read, Ok(Ok(1..))) {
        return;
    }
    let answer = match serde_json::from_str(&line) {
        Ok(Request::Reload) => json!(reload(&door.reloads, by).await),
        Ok(Request::LockedUsers) => json!(locked_users(&door)),
        Ok(Request::Unlock { user, occasion }) => json!(unlock(&user, occasion, &door, &by)),
        Ok(Request::QueueRetry { wanted }) => json!(retry(&wanted, &door.queue).await),
        Ok(Request::QueueState) => json!(state(&door.queue).await),
        Ok(Request::QueueDrop { wanted, bounces }) => {
            json!(give_up(&wanted, bounces, &door.queue, &by).await)
        }
        Err(error) => json!(Answer { problem: Some(error.to_string()), ..Answer::default() }),
    };
    let text = answer.to_string() + "\n";
    if let Err(error) = writer.write_all(text.as_bytes()).await {
        tracing::debug!(%error, "an operator has gone");
    }
}

/// Who asks, as the system knows them.
fn operator(stream: &UnixStream) -> By {
    let Ok(peer) = stream.peer_cred() else {
        return By::Operator { uid: None, name: "somebody".into() };
    };
    let user = uzers::get_user_by_uid(peer.uid());
    let name = user.map(|user| user.name().to_string_lossy().into_owned());
    let name = name.unwrap_or_else(|| format!("user {}", peer.uid()));
    By::Operator { uid: Some(peer.uid()), name: name.into() }
}

fn locked_users(door: &Door) -> LockedUsers {
    LockedUsers { locked: door.shared.handler().throttled() }
}

fn unlock(user: &MailboxOwner, occasion: UnlockOccasion, door: &Door, by: &By) -> UnlockAnswer {
    let was_locked = door.shared.handler().lift_throttle(user);
    let user = door.shared.handler().called(user);
    match occasion {
        UnlockOccasion::Command => {
            tracing::info!(%user, by = by.to_string(), was_locked, "failed logins are forgotten");
        }
        UnlockOccasion::NewPassword => {
            tracing::info!(%user, by = by.to_string(), was_locked, "the password has been changed");
        }
    }
    UnlockAnswer { was_locked }
}

async fn reload(reloads: &mpsc::Sender<ReloadRequest>, by: By) -> ReloadAnswer {
    let (to_asker, answer) = oneshot::channel();
    // The daemon drops the request, or the door, only when it stops.
    let sent = reloads.send(ReloadRequest { by, answer: to_asker }).await.is_ok();
    let answered = if sent { answer.await.ok() } else { None };
    answered.unwrap_or_else(|| ReloadAnswer {
        problem: Some("the daemon is stopping".to_owned()),
        ..ReloadAnswer::default()
    })
}

/// Asks the daemon of a data folder, and waits for its answer.
///
/// # Errors
/// There is no daemon, or no answer that can be read.
pub fn ask<T: DeserializeOwned>(data_dir: &Path, request: &Request) -> io::Result<T> {
    let path = path(data_dir);
    let mut stream = std::os::unix::net::UnixStream::connect(&path).map_err(|error| {
        let message = match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                format!("no daemon is running on {}", data_dir.display())
            }
            _ => format!("{}: {error}", path.display()),
        };
        io::Error::new(error.kind(), message)
    })?;
    stream.write_all((json!(request).to_string() + "\n").as_bytes())?;
    let mut answer = String::new();
    io::BufReader::new(stream).read_line(&mut answer)?;
    serde_json::from_str(&answer)
        .map_err(|error| io::Error::other(format!("the daemon's answer cannot be read: {error}")))
}

async fn retry(wanted: &Wanted, queue: &MailQueue) -> Answer {
    let Hurried { tried, waiting, in_flight, missed } = queue.retry(wanted).await;
    let paused = queue.is_paused();
    Answer { done: tried, waiting, in_flight, missed, paused, problem: None }
}

async fn give_up(wanted: &Wanted, is_told: bool, queue: &MailQueue, by: &By) -> Answer {
    match queue.give_up(wanted, is_told).await {
        Ok(GivenUp { done, in_flight, missed }) => {
            let count = done.len();
            if count > 0 {
                let entries = listed(&done);
                tracing::info!(
                    by = by.to_string(),
                    count,
                    entries,
                    is_told,
                    "the administrator has dropped mail"
                );
            }
            Answer { done, in_flight, missed, ..Answer::default() }
        }
        Err(error) => {
            tracing::error!(by = by.to_string(), %error, "not all of the mail could be dropped");
            Answer { problem: Some(error.to_string()), ..Answer::default() }
        }
    }
}

/// Entries for a line of the log, which is not to grow with their number.
fn listed(ids: &[QueueId]) -> String {
    let named: Vec<_> = ids.iter().take(MAX_LISTED).map(ToString::to_string).collect();
    let more = if ids.len() > MAX_LISTED { ", …" } else { "" };
    named.join(", ") + more
}

/// What each entry waits for; there may be many.
async fn state(queue: &Arc<MailQueue>) -> Answer {
    let paused = queue.is_paused();
    let queue = Arc::clone(queue);
    let told = tokio::task::spawn_blocking(move || queue.waits_for()).await;
    match told {
        Ok(waiting) => Answer { waiting, paused, ..Answer::default() },
        Err(error) => Answer { problem: Some(error.to_string()), ..Answer::default() },
    }
}
