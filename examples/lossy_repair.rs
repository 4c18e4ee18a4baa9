//! How peers repair what a link has lost, step by step (SDS-R, <https://rfc.vac.dev/vac/raw/sds>): a message is lost on the
//! way to carol, its author goes away, and those who have it decide without a word who of them answers her. Time is
//! paused, so that minutes pass at once.
//!
//! `cargo run --example lossy_repair`
#![allow(clippy::print_stdout, clippy::panic, reason = "an example that tells its story")]

use std::time::Duration;

use ractor_persistence::channel::{ChannelDelivery, ChannelEvents};
use ractor_persistence::sds::{ChannelEvent, ReceiveStatus, SdsMessage, WireFormat, decode};
use ractor_persistence::{Channel, ChannelOptions, Result, Store};
use tokio::time::Instant;

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> Result<()> {
    let begun = Instant::now();
    let tell = |what: &str| println!("{:>8.3} s  {what}", begun.elapsed().as_secs_f64());
    let (alice, bob, carol, dave) =
        (join("alice").await?, join("bob").await?, join("carol").await?, join("dave").await?);
    let (mut at_bob, mut at_carol, mut at_dave) = (bob.subscribe(), carol.subscribe(), dave.subscribe());

    // 1. m1 reaches bob and dave, and is lost on the way to carol.
    let m1 = alice.wrap("m1", "the plan").await?;
    for peer in [&bob, &dave] {
        assert_eq!(peer.receive(&m1).await?.status, ReceiveStatus::Delivered);
    }
    tell("alice says m1; bob and dave hear it, carol does not");

    // 2. m2 names m1 as its cause, so carol learns that she lacks it. She holds m2 back.
    let m2 = alice.wrap("m2", "let us go by the plan").await?;
    for peer in [&bob, &dave] {
        assert_eq!(peer.receive(&m2).await?.status, ReceiveStatus::Delivered);
    }
    let received = carol.receive(&m2).await?;
    assert_eq!((received.status, received.missing[0].message_id.as_str()), (ReceiveStatus::Parked, Some("m1")));
    assert_eq!(carol.stats().await?.requests, 1);
    tell("alice says m2; carol holds it back, because it refers to m1");

    // 3. Alice, who would send m1 again, goes away.
    alice.close().await?;
    tell("alice goes away");

    // 4. Carol waits for as long as the hash of her name and the message's id says, in case others ask before her. Then
    //    the next message that she sends, here a sync message, asks for m1.
    let asked = next(&mut at_carol, |event| match event {
        ChannelEvent::Sync { bytes, .. } if !message(bytes).repair_request.is_empty() => Some(bytes.clone()),
        _ => None,
    });
    let request = asked.await;
    let entry = &message(&request).repair_request[0];
    assert_eq!((entry.message_id.as_str(), entry.sender_id.as_str()), (Some("m1"), Some("alice")));
    assert!(begun.elapsed() >= Duration::from_secs(30), "T_min");
    tell("carol asks for m1");

    // 5. Bob and dave have it. Each waits for as long as his distance from the author says; nobody coordinates them.
    for peer in [&bob, &dave] {
        peer.receive(&request).await?;
        assert_eq!(peer.stats().await?.responses, 1);
    }
    tell("bob and dave hear that, and wait for their turns to answer");
    let of_m1 = |event: &ChannelEvent| match event {
        ChannelEvent::Repair { id, bytes } if id == "m1" => Some(bytes.clone()),
        _ => None,
    };
    let (first, repair) = tokio::select! {
        bytes = next(&mut at_bob, of_m1) => ("bob", bytes),
        bytes = next(&mut at_dave, of_m1) => ("dave", bytes),
    };
    let (other, at_other) = if first == "bob" { (&dave, &mut at_dave) } else { (&bob, &mut at_bob) };
    tell(&format!("{first} answers"));

    // 6. The other one hears the answer and has no need to give it any more.
    assert_eq!(other.receive(&repair).await?.status, ReceiveStatus::Duplicate);
    assert_eq!(other.stats().await?.responses, 0);
    tell("the other one hears the answer, and keeps silent");

    // 7. Carol has m1, as alice wrote it, and what waited for it.
    assert_eq!(message(&repair).sender_id, "alice");
    assert_eq!(carol.receive(&repair).await?.status, ReceiveStatus::Delivered);
    let mut heard = Vec::new();
    while let Some(ChannelDelivery::Event(event)) = at_carol.try_recv() {
        if let ChannelEvent::Ready { message } = event {
            heard.push(message.message_id.to_string());
        }
    }
    assert_eq!(heard, ["m1", "m2"]);
    assert_eq!((carol.stats().await?.requests, carol.missing().await?.len()), (0, 0));
    tell("carol delivers m1 and then m2");

    // 8. And nobody repairs it once more.
    tokio::time::sleep(Duration::from_secs(600)).await;
    let again = std::iter::from_fn(|| at_other.try_recv());
    assert!(
        again.into_iter().all(|delivery| !matches!(delivery, ChannelDelivery::Event(event) if of_m1(&event).is_some()))
    );
    tell("nobody has answered twice");
    Ok(())
}

/// A peer of its own, in memory, with the intervals as they are by default.
async fn join(name: &str) -> Result<Channel> {
    let store = Store::builder(name).start().await?;
    store.open_channel("room", ChannelOptions::default().with_participant(name)).await
}

fn message(bytes: &[u8]) -> SdsMessage {
    match decode(WireFormat::NimSds, bytes) {
        Ok(packet) => packet.to_message(),
        Err(error) => panic!("our own bytes: {error}"),
    }
}

/// Waits for an event of some kind.
async fn next<T>(events: &mut ChannelEvents, wanted: impl Fn(&ChannelEvent) -> Option<T>) -> T {
    loop {
        match events.recv().await {
            Some(ChannelDelivery::Event(event)) => {
                if let Some(found) = wanted(&event) {
                    return found;
                }
            }
            other => panic!("{other:?} is no event"),
        }
    }
}
