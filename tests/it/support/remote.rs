//! Another organization's mail server that misbehaves as a test tells it, and counts what it took.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::ledger::subject_of;
use super::wait_for;

/// What the server does beside what every server does. Numbers count from 1.
pub struct Manners {
    /// A line of the answer to EHLO.
    pub offers: &'static str,
    /// Whether it accepts connections and says nothing.
    pub is_silent: bool,
    /// The answer to RCPT for this address, asked for so many times so far.
    pub rcpt: fn(&str, usize) -> &'static str,
    /// The answer to the final dot of the so manieth message; `None` closes the connection.
    pub dot: fn(usize) -> Option<&'static str>,
}

impl Default for Manners {
    fn default() -> Self {
        Self {
            offers: "PIPELINING",
            is_silent: false,
            rcpt: |_, _| "250 2.1.5 ok",
            dot: |_| Some("250 2.0.0 taken"),
        }
    }
}

/// A message that the server had in full for one recipient, whatever it answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    pub subject: String,
    pub recipient: String,
    /// In which epoch the connection began.
    pub epoch: u64,
    /// Milliseconds since 1970.
    pub at: u64,
}

/// Listens until it is dropped.
pub struct Remote {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    manners: Manners,
    taken: Mutex<Vec<Taken>>,
    asked: Mutex<Vec<String>>,
    messages: AtomicUsize,
    epoch: AtomicU64,
    open: Mutex<Vec<(usize, TcpStream)>>,
    connections: AtomicUsize,
    is_over: AtomicBool,
}

impl Remote {
    pub fn start(manners: Manners) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let address = listener.local_addr().expect("bound");
        let shared = Arc::new(Shared {
            manners,
            taken: Mutex::default(),
            asked: Mutex::default(),
            messages: AtomicUsize::new(0),
            epoch: AtomicU64::new(0),
            open: Mutex::default(),
            connections: AtomicUsize::new(0),
            is_over: AtomicBool::new(false),
        });
        let serving = Arc::clone(&shared);
        let thread = std::thread::spawn(move || serve(&listener, &serving));
        Self { address, shared, thread: Some(thread) }
    }

    /// Everything that it took so far.
    pub fn taken(&self) -> Vec<Taken> {
        locked(&self.shared.taken).clone()
    }

    /// How many connections were made to it.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(SeqCst)
    }

    /// Waits until every connection of a client that has ended is worked through, then begins
    /// another epoch.
    pub fn next_epoch(&self) {
        // It is accepted after all that came before it.
        let last = TcpStream::connect(self.address).expect("connects");
        let mut banner = String::new();
        let mut reader = BufReader::new(last);
        reader.read_line(&mut banner).expect("a banner");
        drop(reader);
        wait_for("the connections to end", || locked(&self.shared.open).is_empty().then_some(()));
        self.shared.epoch.fetch_add(1, SeqCst);
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.shared.is_over.store(true, SeqCst);
        drop(TcpStream::connect(self.address)); // Wakes the one that accepts.
        for (_, stream) in locked(&self.shared.open).iter() {
            drop(stream.shutdown(std::net::Shutdown::Both)); // It may have ended.
        }
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no thread panics")
}

fn serve(listener: &TcpListener, shared: &Arc<Shared>) {
    std::thread::scope(|scope| {
        for stream in listener.incoming() {
            if shared.is_over.load(SeqCst) {
                return;
            }
            let stream = stream.expect("accepts");
            let number = shared.connections.fetch_add(1, SeqCst);
            locked(&shared.open).push((number, stream.try_clone().expect("clones")));
            scope.spawn(move || {
                // The client may go at any moment.
                drop(Session::new(shared, stream).and_then(Session::converse));
                locked(&shared.open).retain(|(open, _)| *open != number);
            });
        }
    });
}

struct Session<'a> {
    shared: &'a Shared,
    epoch: u64,
    reader: BufReader<TcpStream>,
    recipients: Vec<String>,
}

impl<'a> Session<'a> {
    fn new(shared: &'a Shared, stream: TcpStream) -> std::io::Result<Self> {
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        stream.set_nodelay(true)?;
        let epoch = shared.epoch.load(SeqCst);
        Ok(Self { shared, epoch, reader: BufReader::new(stream), recipients: Vec::new() })
    }

    fn line(&mut self) -> std::io::Result<String> {
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line)
    }

    fn say(&mut self, reply: &str) -> std::io::Result<()> {
        self.reader.get_mut().write_all(format!("{reply}\r\n").as_bytes())
    }

    fn converse(mut self) -> std::io::Result<()> {
        if self.shared.manners.is_silent {
            loop {
                self.line()?;
            }
        }
        self.say("220 mx.far.test ESMTP")?;
        loop {
            let line = self.line()?;
            let verb = line.trim_end().to_ascii_uppercase();
            match verb.split([' ', ':']).next().unwrap_or_default() {
                "EHLO" => {
                    let offers = self.shared.manners.offers;
                    self.say(&format!("250-mx.far.test\r\n250 {offers}"))?;
                }
                "STARTTLS" => {
                    self.say("220 2.0.0 go on")?;
                    // Whatever this is, it is no TLS record.
                    return self.say("this is not TLS");
                }
                "MAIL" | "RSET" => {
                    self.recipients.clear();
                    self.say("250 2.1.0 ok")?;
                }
                "RCPT" => self.rcpt(&line)?,
                "DATA" if self.recipients.is_empty() => self.say("554 5.5.1 no recipients")?,
                "DATA" => self.data()?,
                _ => return self.say("221 2.0.0 bye"),
            }
        }
    }

    fn rcpt(&mut self, line: &str) -> std::io::Result<()> {
        let address = line.split(['<', '>']).nth(1).expect("an address").to_owned();
        let times = {
            let mut asked = locked(&self.shared.asked);
            asked.push(address.clone());
            asked.iter().filter(|asked| **asked == address).count()
        };
        let reply = (self.shared.manners.rcpt)(&address, times);
        if reply.starts_with('2') {
            self.recipients.push(address);
        }
        self.say(reply)
    }

    fn data(&mut self) -> std::io::Result<()> {
        self.say("354 go on")?;
        let mut message = String::new();
        loop {
            let line = self.line()?;
            if line == ".\r\n" {
                break;
            }
            message.push_str(&line);
        }
        let subject = subject_of(message.as_bytes());
        let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        let taken = self.recipients.drain(..).map(|recipient| Taken {
            subject: subject.clone(),
            recipient,
            epoch: self.epoch,
            at: since.as_millis() as u64,
        });
        locked(&self.shared.taken).extend(taken);
        let number = self.shared.messages.fetch_add(1, SeqCst) + 1;
        match (self.shared.manners.dot)(number) {
            Some(reply) => self.say(reply),
            None => Err(std::io::ErrorKind::ConnectionAborted.into()),
        }
    }
}
