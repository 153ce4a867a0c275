//! Sets of what has a text of its own, as lists of those texts.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serializer, de};

pub(super) fn serialize<T: Display, S: Serializer>(
    set: &BTreeSet<T>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(set.iter().map(ToString::to_string))
}

pub(super) fn deserialize<'de, T, D>(deserializer: D) -> Result<BTreeSet<T>, D::Error>
where
    T: FromStr<Err: Display> + Ord,
    D: Deserializer<'de>,
{
    let texts = Vec::<String>::deserialize(deserializer)?;
    let read = |text: &String| text.parse().map_err(de::Error::custom);
    texts.iter().map(read).collect()
}
