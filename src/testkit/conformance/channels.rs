//! What is stored of channels. Adapters that do not declare them refuse them, and are asked nothing else.

use std::sync::Arc;

use bytes::Bytes;

use crate::base::error::Error;
use crate::base::name::{ChannelId, ChannelKey, MessageId};
use crate::persistence::{Capabilities, Save};
use crate::sds::{ChannelData, ChannelMeta, HistoryUpdate, SdsMessage};
use crate::testkit::conformance::bench::{Bench, bucket, channel, full};
use crate::testkit::conformance::data::{self, message};
use crate::testkit::verdict::{Doing, ensure, with_causes};
use crate::testkit::{Broken, Factory, Verdict};

fn history<I: Into<MessageId>>(
    channel: &ChannelId,
    append: Vec<SdsMessage>,
    evict: impl IntoIterator<Item = I>,
) -> Save {
    let evict = evict.into_iter().map(Into::into).collect();
    Save::History(channel.clone(), Arc::new(HistoryUpdate::new(append, evict)))
}

fn append(channel: &ChannelId, messages: Vec<SdsMessage>) -> Save {
    history(channel, messages, None::<MessageId>)
}

fn meta(channel: &ChannelId, meta: ChannelMeta) -> Save {
    Save::ChannelMeta(channel.clone(), Arc::new(meta))
}

fn hint(channel: &ChannelId, message: impl Into<MessageId>, hint: &'static [u8]) -> Save {
    Save::Hint(channel.clone(), message.into(), Bytes::from_static(hint))
}

/// An adapter that does not declare channels refuses them with `Unsupported`, alone and in a commit; one that does
/// loads the default of a channel that nothing was ever stored of.
pub async fn channels_are_kept_or_refused(factory: &dyn Factory, declared: Capabilities) -> Verdict {
    let mut bench = Bench::open(factory, declared).await?;
    let id = channel("never saved")?;
    let key = ChannelKey::new(bench.store.clone(), id.clone());
    if declared.channels {
        let found = bench.adapter.load_channel(&key).await.doing("loading a channel that was never saved")?;
        ensure!(found == ChannelData::default(), "a new place has a channel that nobody saved: {found:?}");
        bench.reopen().await?;
        let found = bench.adapter.load_channel(&key).await.doing("loading a channel that was never saved")?;
        ensure!(found == ChannelData::default(), "loading a channel made it: {found:?}");
        return Ok(());
    }
    let update = HistoryUpdate::new(vec![message("m", 1, "text")], vec![]);
    let refused: [(&str, Result<(), Error>); 9] = [
        ("load_channel", bench.adapter.load_channel(&key).await.map(drop)),
        ("save_channel_meta", bench.adapter.save_channel_meta(&key, &data::meta(1)).await),
        ("update_history", bench.adapter.update_history(&key, &update).await),
        ("set_retrieval_hint", bench.adapter.set_retrieval_hint(&key, &"m".into(), b"hint").await),
        ("drop_channel", bench.adapter.drop_channel(&key).await),
        ("a commit of a channel's meta", bench.attempt(&bench.store.clone(), vec![meta(&id, data::meta(1))]).await),
        (
            "a commit of a channel's history",
            bench.attempt(&bench.store.clone(), vec![append(&id, update.append)]).await,
        ),
        ("a commit of a hint", bench.attempt(&bench.store.clone(), vec![hint(&id, "m", b"hint")]).await),
        ("a commit of a drop", bench.attempt(&bench.store.clone(), vec![Save::DropChannel(id.clone())]).await),
    ];
    for (what, result) in refused {
        match result {
            Err(Error::Unsupported { .. }) => {}
            Ok(()) => return Err(Broken::new(format!("channels are not declared, but {what} succeeded"))),
            Err(other) => {
                let message = format!("{what} must be Unsupported without channels, it was: {}", with_causes(&other));
                return Err(Broken::new(message));
            }
        }
    }
    // What was refused leaves the adapter usable.
    bench
        .commit_and_check("refused channels", vec![full(&bucket("a")?, data::snapshot(1, vec![data::record(1, "a")]))])
        .await
}

/// A channel's state comes back with every field of it, and a later one replaces it.
pub async fn a_channels_state_comes_back(factory: &dyn Factory, declared: Capabilities) -> Verdict {
    if !declared.channels {
        return Ok(());
    }
    let mut bench = Bench::open(factory, declared).await?;
    let id = channel("with state")?;
    bench.commit_and_check("saving a channel's state", vec![meta(&id, data::full_meta())]).await?;
    bench.commit_and_check("saving a smaller state over it", vec![meta(&id, data::meta(3))]).await
}

/// A history is loaded by (lamport timestamp, id), whatever the order of delivery, with every field of its messages.
pub async fn a_history_is_in_order(factory: &dyn Factory, declared: Capabilities) -> Verdict {
    if !declared.channels {
        return Ok(());
    }
    let mut bench = Bench::open(factory, declared).await?;
    let id = channel("with history")?;
    let timestamps = [256, 1, i64::MAX, 255, 2, -1, 0, 65_536, i64::MIN, 1 << 53, -256];
    let messages = timestamps.iter().map(|lamport| message(format!("m{lamport}").as_str(), *lamport, "text")).collect();
    bench.commit_and_check("appending messages", vec![append(&id, messages)]).await?;
    // Of one timestamp, the bytes of the ids decide; a shorter one is before those that it begins.
    let messages = ["b", "a", "aa", "B", "\u{e9}", "z"].into_iter().chain(["a\0"]).map(|id| message(id, 255, "tie"));
    bench.commit_and_check("appending messages of one timestamp", vec![append(&id, messages.collect())]).await?;
    let update = append(&id, vec![message("late", 3, "came late")]);
    bench.commit_and_check("appending a message older than others", vec![update]).await
}

/// Message ids, participants and contents may be any bytes.
pub async fn message_ids_may_be_any_bytes(factory: &dyn Factory, declared: Capabilities) -> Verdict {
    if !declared.channels {
        return Ok(());
    }
    let mut bench = Bench::open(factory, declared).await?;
    let id = channel("with odd messages")?;
    let ids = data::message_ids();
    let messages = ids.iter().map(|id| data::odd_message(id.as_bytes(), 5)).collect();
    let mut saves = vec![append(&id, messages)];
    saves.extend(ids.iter().map(|message| Save::Hint(id.clone(), message.clone(), message.as_bytes().to_vec().into())));
    bench.commit_and_check("appending messages with all kinds of ids", saves).await?;
    let half: Vec<MessageId> = ids.iter().step_by(2).cloned().collect();
    bench.commit_and_check("evicting every second of them", vec![history(&id, vec![], half)]).await
}

/// Appends come before evictions; what is evicted is gone, and an eviction of what is not there changes nothing.
pub async fn evictions_remove_what_they_name(factory: &dyn Factory, declared: Capabilities) -> Verdict {
    if !declared.channels {
        return Ok(());
    }
    let mut bench = Bench::open(factory, declared).await?;
    let (id, other, never) = (channel("evicting")?, channel("evicting not")?, channel("never appended to")?);
    let messages = || (1..=5).map(|number| message(format!("m{number}").as_str(), number, "text")).collect::<Vec<_>>();
    bench.commit(vec![append(&id, messages()), append(&other, messages())]).await?;
    let update = history(&id, vec![message("m6", 6, "text"), message("m0", 0, "text")], ["m2", "m5", "unknown"]);
    bench.commit_and_check("an update that appends and evicts", vec![update]).await?;
    let saves = vec![history(&id, vec![], ["m2", "unknown", ""]), history(&never, vec![], ["m1"])];
    bench.commit_and_check("evictions of what is not there", saves).await?;
    let saves = vec![append(&id, vec![message("m2", 2, "back")])];
    bench.commit_and_check("appending what was evicted", saves).await
}

/// A message that is appended again is there once, as it came last, wherever its new timestamp puts it.
pub async fn a_repeated_message_is_there_once(factory: &dyn Factory, declared: Capabilities) -> Verdict {
    if !declared.channels {
        return Ok(());
    }
    let mut bench = Bench::open(factory, declared).await?;
    let id = channel("repeating")?;
    let messages = || vec![message("a", 1, "first"), message("b", 2, "first"), message("c", 3, "first")];
    bench.commit_and_check("appending messages", vec![append(&id, messages()), hint(&id, "a", b"hint")]).await?;
    bench.commit_and_check("appending them again", vec![append(&id, messages())]).await?;
    let saves =
        vec![append(&id, vec![message("a", 1, "second"), message("b", 9, "second"), message("c", 0, "second")])];
    bench.commit_and_check("appending them with other contents and timestamps", saves).await?;
    bench.commit_and_check("evicting one of them", vec![history(&id, vec![], ["b"])]).await
}

/// State, history and hints of a channel are kept side by side: saving one leaves the others, and one commit takes all.
pub async fn state_and_history_are_kept_side_by_side(factory: &dyn Factory, declared: Capabilities) -> Verdict {
    if !declared.channels {
        return Ok(());
    }
    let mut bench = Bench::open(factory, declared).await?;
    let id = channel("whole")?;
    let saves = vec![append(&id, vec![message("a", 1, "text")]), meta(&id, data::full_meta()), hint(&id, "a", b"x")];
    bench.commit_and_check("saving history, state and hint in one commit", saves).await?;
    bench.commit_and_check("saving a state alone", vec![meta(&id, data::meta(2))]).await?;
    bench.commit_and_check("saving a history alone", vec![append(&id, vec![message("b", 2, "text")])]).await?;
    let saves =
        vec![meta(&id, data::meta(3)), history(&id, vec![message("c", 3, "text")], ["a"]), meta(&id, data::meta(4))];
    bench.commit_and_check("saving the state twice in one commit", saves).await?;
    let saves = vec![append(&id, vec![]), meta(&channel("state only")?, data::meta(1))];
    bench.commit_and_check("an update without messages", saves).await
}

/// A hint is kept, overwritten, deleted by an empty one, and goes with its message.
pub async fn hints_go_with_their_messages(factory: &dyn Factory, declared: Capabilities) -> Verdict {
    if !declared.channels {
        return Ok(());
    }
    let mut bench = Bench::open(factory, declared).await?;
    let (id, other) = (channel("hinting")?, channel("hinting too")?);
    let messages = || ["a", "b", "c", "d"].map(|id| message(id, 1, "text")).to_vec();
    let mut saves = vec![append(&id, messages()), append(&other, messages())];
    for channel in [&id, &other] {
        saves.extend(["a", "b", "c"].map(|message| hint(channel, message, b"first \xff\0")));
    }
    // A message that waits for its acknowledgement has a hint before it is in the history.
    saves.push(hint(&id, "outgoing", b"early"));
    bench.commit_and_check("saving hints", saves).await?;
    let saves = vec![hint(&id, "a", b"second"), hint(&id, "b", b""), hint(&id, "d", b""), hint(&id, "unknown", b"")];
    bench.commit_and_check("overwriting and deleting hints", saves).await?;
    bench.commit_and_check("evicting a message with a hint", vec![history(&id, vec![], ["c"])]).await?;
    let saves = vec![append(&id, vec![message("c", 1, "back")])];
    bench.commit_and_check("appending that message again", saves).await?;
    let saves = vec![history(&id, vec![], ["outgoing"])];
    bench.commit_and_check("evicting a message that has a hint and was never stored", saves).await
}

/// A dropped channel is gone with state, history and hints, alone, and can be made anew.
pub async fn a_dropped_channel_is_gone(factory: &dyn Factory, declared: Capabilities) -> Verdict {
    if !declared.channels {
        return Ok(());
    }
    let mut bench = Bench::open(factory, declared).await?;
    let (id, other, never) = (channel("dropped")?, channel("dropped not")?, channel("never saved")?);
    let mut saves = Vec::new();
    for channel in [&id, &other] {
        saves.push(append(channel, vec![message("a", 1, "text"), message("b", 2, "text")]));
        saves.push(meta(channel, data::full_meta()));
        saves.push(hint(channel, "a", b"hint"));
    }
    bench.commit(saves).await?;
    bench.commit_and_check("a drop", vec![Save::DropChannel(id.clone()), Save::DropChannel(never)]).await?;
    bench.commit_and_check("an append to what was dropped", vec![append(&id, vec![message("b", 5, "new")])]).await?;
    let saves =
        vec![Save::DropChannel(id.clone()), append(&id, vec![message("c", 6, "newer")]), meta(&id, data::meta(1))];
    bench.commit_and_check("a drop and saves in one commit", saves).await
}
