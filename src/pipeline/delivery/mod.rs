//! Where it goes: mailboxes with room, as their rules say, and to whom they send it on.

pub(super) mod admit;
pub(super) mod genuine;
pub(super) mod onward;
pub(super) mod prefix;
pub(super) mod sign;
pub(super) mod sort;
pub(super) mod spread;
