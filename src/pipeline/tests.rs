use super::*;
use crate::clock::Timestamp;
use crate::events::audit::{MailboxAccess, Occasion};
use crate::id::{EntityId, EntityKind};
use crate::soon::soon;

/// Whoever is told of in a turn holds it as long as the disk hangs, and this does not end.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hanging_disk_of_the_audit_logs_stops_no_heavy_work() {
    let heavy = Weight::of_deliveries(1000);
    let (audit, disk) = AuditLog::hanging();
    let audit = Arc::new(audit);
    let mail_log = Arc::new(MailLogWriter::start().expect("a thread"));
    let processors = std::thread::available_parallelism().expect("is known").get();
    let mut waiting = Vec::new();
    for _ in 0..processors {
        let (audit, mail_log) = (Arc::clone(&audit), Arc::clone(&mail_log));
        waiting.push(tokio::spawn(async move {
            let at = Timestamp::from_millis(0);
            let owner = EntityId::generate(EntityKind::User);
            let occasion = Occasion::new(at, TraceId::generate(), None, None);
            let access = MailboxAccess::delivered(occasion, None, owner, "INBOX");
            tell(None, || audit.record_all(vec![access]), &mail_log, heavy).await;
        }));
    }
    // Often, so that all of them have come to it meanwhile.
    for _ in 0..1000 {
        let turn = heavy::in_turn(heavy, |_: &Turn| tokio::task::yield_now());
        soon("a turn beside the disk that hangs", turn).await.await;
    }
    assert!(waiting.iter().all(|task| !task.is_finished()), "the disk hangs");
    drop(disk);
    for task in waiting {
        soon("the end of who waited for the disk", task).await.expect("ends");
    }
}
