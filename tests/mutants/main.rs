//! The kit fails adapters that are broken on purpose, each by the promise named for what is broken.
//!
//! A kit that passes everything proves nothing: were this broken, an adapter could lose data in one of these ways and
//! still be called conformant.
#![cfg(feature = "testkit")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests say what they expect by unwrapping it")]

mod alter;
mod mutant;

use std::collections::BTreeSet;
use std::sync::Arc;

use ractor_persistence::adapters::memory::MemoryAdapter;
use ractor_persistence::base::durability::Durability;
use ractor_persistence::base::error::Error;
use ractor_persistence::base::name::{BucketName, ChannelId, StoreName};
use ractor_persistence::base::value::Value;
use ractor_persistence::persistence::{Epoch, Save, StorageAdapter};
use ractor_persistence::records::{BucketChange, BucketDelta, BucketSnapshot};
use ractor_persistence::testkit::conformance::PROMISES;
use ractor_persistence::testkit::{BackedUp, Poisoned, Verdict};

use crate::alter::{any_request, delta, flipping, history, remade, values};
use crate::mutant::{Mutant, Mutation, POISON, SOUND};

async fn examine(promise: &str, mutation: Mutation) -> Verdict {
    let promise = PROMISES.iter().find(|candidate| candidate.name == promise).expect("there is such a promise");
    let mutant = Mutant { sound: MemoryAdapter::default(), mutation, notes: Arc::default() };
    let poison = Save::Bucket(BucketName::new(POISON).unwrap(), BucketChange::Full(BucketSnapshot::default()).into());
    let declared = (mutation.declares)(MemoryAdapter::default().capabilities());
    let backups = mutant.clone();
    let open_backup = move |target| {
        let backup = backups.notes.lock().unwrap().backups.get(&target).cloned();
        std::future::ready(backup.ok_or_else(|| Error::invalid_argument("there is no such backup")))
    };
    let factory = Poisoned::new(move || std::future::ready(Ok(mutant.clone())), poison);
    promise.examine(&BackedUp::new(factory, "/backup", open_backup), declared).await
}

macro_rules! mutants {
    ($($name:ident: $promise:ident, { $($mutation:tt)* };)*) => {
        /// All of them, with the promise that each breaks.
        const MUTANTS: &[(&str, &str, Mutation)] =
            &[$((stringify!($name), stringify!($promise), Mutation { $($mutation)*, ..SOUND })),*];
    $(
        #[tokio::test]
        async fn $name() {
            let broken = examine(stringify!($promise), Mutation { $($mutation)*, ..SOUND }).await;
            println!("{}", broken.expect_err("the kit passed a broken adapter"));
        }
    )*};
}

/// The promises that are proven elsewhere to be breakable.
const ELSEWHERE: [&str; 1] = ["data_survives_a_restart_if_declared"];

#[tokio::test]
async fn ps_29_the_kit_fails_each_mutant_by_its_promise_and_no_promise_is_without_one() {
    let mut without: BTreeSet<&str> = PROMISES.iter().map(|promise| promise.name).collect();
    for (name, promise, mutation) in MUTANTS {
        let verdict = examine(promise, *mutation).await;
        assert!(verdict.is_err(), "{name} keeps the promise {promise}");
        without.remove(promise);
    }
    ELSEWHERE.iter().for_each(|promise| assert!(without.remove(promise)));
    assert!(without.is_empty(), "no mutant breaks {without:?}");
}

mutants! {
    mutant_that_declares_something_else_each_time: capabilities_are_as_expected, { declares: flipping };
    mutant_that_makes_floats_of_integers: every_kind_of_value_comes_back, {
        bucket: |bucket| values(bucket, |value| match value {
            #[allow(clippy::cast_precision_loss)]
            Value::Int(number) => Value::Float(*number as f64),
            other => other.clone(),
        })
    };
    mutant_that_makes_integers_of_whole_floats: every_kind_of_value_comes_back, {
        bucket: |bucket| values(bucket, |value| value.as_i64().map_or_else(|| value.clone(), Value::Int))
    };
    mutant_that_rounds_floats: every_kind_of_value_comes_back, {
        bucket: |bucket| values(bucket, |value| match value {
            Value::Float(number) => Value::Float(format!("{number:.15e}").parse().unwrap()),
            other => other.clone(),
        })
    };
    mutant_that_cuts_texts_at_nul: every_kind_of_value_comes_back, {
        bucket: |bucket| values(bucket, |value| match value.as_str() {
            Some(text) => text.split('\0').next().into(),
            None => value.clone(),
        })
    };
    mutant_that_makes_texts_of_bytes: every_kind_of_value_comes_back, {
        bucket: |bucket| values(bucket, |value| match value.as_bytes() {
            Some(bytes) => String::from_utf8_lossy(bytes).as_ref().into(),
            None => value.clone(),
        })
    };
    mutant_that_takes_objects_for_tags: every_kind_of_value_comes_back, {
        bucket: |mut bucket| {
            for record in &mut bucket.records {
                let untagged = |value: &Value| match value.at("$bytes").and_then(Value::as_str) {
                    Some(text) => Value::from(text.as_bytes()),
                    None => value.clone(),
                };
                *record = remade(record, record.key(), record.place(), untagged);
            }
            Some(bucket)
        }
    };
    mutant_that_nests_less_deeply: the_deepest_nesting_comes_back, {
        bucket: |bucket| values(bucket, |value| if value.as_i64() == Some(1) { Value::Null } else { value.clone() })
    };
    mutant_that_takes_number_keys_for_texts: every_key_is_its_own, {
        save: |save| delta(save, |delta| {
            for record in &mut delta.upserts {
                *record = remade(record, record.key().to_string(), record.place(), Value::clone);
            }
        })
    };
    mutant_that_makes_up_places: metadata_and_standing_come_back, {
        bucket: |mut bucket| {
            bucket.records.sort_by(|left, right| left.key().cmp(right.key()));
            for (place, record) in (0..).zip(&mut bucket.records) {
                *record = remade(record, record.key(), place, Value::clone);
            }
            Some(bucket)
        }
    };
    mutant_that_forgets_the_counter: metadata_and_standing_come_back, {
        bucket: |mut bucket| { bucket.counter = 0; Some(bucket) }
    };
    mutant_that_forgets_the_schema_version: metadata_and_standing_come_back, {
        bucket: |mut bucket| { bucket.schema_version = 1; Some(bucket) }
    };
    mutant_that_cuts_large_values: large_values_come_back, {
        bucket: |bucket| values(bucket, |value| match value.as_bytes() {
            Some(bytes) => bytes.get(..bytes.len().min((16 << 20) - 1)).unwrap_or(bytes).into(),
            None => value.clone(),
        })
    };
    mutant_that_pages_and_forgets_the_last_page: many_records_come_back, {
        bucket: |mut bucket| { bucket.records.truncate(4_096); Some(bucket) }
    };
    mutant_that_takes_an_empty_bucket_for_none: an_empty_bucket_is_kept, {
        bucket: |bucket| (!bucket.records.is_empty()).then_some(bucket)
    };
    mutant_that_merges_whole_buckets: a_whole_bucket_replaces_the_old_one, {
        save: |save| Some(match &save {
            Save::Bucket(name, change) => match &**change {
                BucketChange::Full(full) => {
                    let mut delta = BucketDelta::new(full.revision, full.counter, full.schema_version);
                    delta.upserts = full.records.clone();
                    Save::Bucket(name.clone(), BucketChange::Delta(delta).into())
                }
                _ => save,
            },
            _ => save,
        })
    };
    mutant_that_forgets_deletes: a_change_touches_what_it_names, {
        save: |save| delta(save, |delta| delta.deletes.clear())
    };
    mutant_that_never_overwrites: a_change_touches_what_it_names, {
        save: |save| delta(save, |delta| delta.upserts.retain(|record| record.place() != 1))
    };
    mutant_that_forgets_empty_changes: a_change_touches_what_it_names, {
        save: |save| (!matches!(&save, Save::Bucket(_, change) if change.is_empty())).then_some(save)
    };
    mutant_that_loses_deltas_of_unknown_buckets: a_change_onto_nothing_makes_the_bucket, {
        save: |save| (!matches!(&save, Save::Bucket(_, change) if change.revision() == 1)).then_some(save)
    };
    mutant_that_forgets_clears: a_clear_goes_before_its_upserts, {
        save: |save| delta(save, |delta| delta.cleared = false)
    };
    mutant_that_clears_last: a_clear_goes_before_its_upserts, {
        save: |save| delta(save, |delta| if delta.cleared { delta.upserts.clear() })
    };
    mutant_that_forgets_the_schema_version_of_changes: a_change_touches_what_it_names, {
        save: |save| delta(save, |delta| delta.schema_version = 1)
    };
    mutant_that_forgets_the_counter_of_changes: a_change_touches_what_it_names, {
        save: |save| delta(save, |delta| delta.counter = 7)
    };
    mutant_that_forgets_drops: a_dropped_bucket_is_gone, {
        save: |save| (!matches!(save, Save::DropBucket(_))).then_some(save)
    };
    mutant_that_empties_what_it_should_drop: a_dropped_bucket_is_gone, {
        save: |save| Some(match save {
            Save::DropBucket(name) => Save::Bucket(name, BucketChange::Full(BucketSnapshot::default()).into()),
            other => other,
        })
    };
    mutant_that_reverses_a_commit: saves_are_applied_in_order, { saves: |saves| saves.reverse() };
    mutant_that_keeps_one_save_per_bucket: saves_are_applied_in_order, {
        saves: |saves| {
            let mut kept = Vec::new();
            saves.reverse();
            saves.retain(|save| match save {
                Save::Bucket(name, _) if kept.contains(name) => false,
                Save::Bucket(name, _) => { kept.push(name.clone()); true }
                _ => true,
            });
            saves.reverse();
        }
    };
    mutant_that_forgets_request_ids: request_ids_come_back_in_order, {
        bucket: |mut bucket| { bucket.requests.clear(); Some(bucket) }
    };
    mutant_that_forgets_the_request_ids_of_changes: request_ids_come_back_in_order, {
        save: |save| delta(save, |delta| delta.requests.clear())
    };
    mutant_that_forgets_the_order_of_request_ids: request_ids_come_back_in_order, {
        bucket: |mut bucket| { bucket.requests.sort_by(|left, right| left.id.cmp(&right.id)); Some(bucket) }
    };
    mutant_that_keeps_request_ids_without_their_keys: request_ids_come_back_in_order, {
        bucket: |mut bucket| { bucket.requests.iter_mut().for_each(|request| request.keys.clear()); Some(bucket) }
    };
    mutant_that_signs_fingerprints: request_ids_come_back_in_order, {
        bucket: |mut bucket| {
            bucket.requests.iter_mut().for_each(|request| request.fingerprint &= i64::MAX.cast_unsigned());
            Some(bucket)
        }
    };
    mutant_that_takes_a_change_without_request_ids_for_a_window_of_none: changes_without_request_ids_leave_them, {
        // A request that is trimmed at once, with all others.
        save: |save| delta(save, |delta| if delta.requests.is_empty() { delta.requests.push(any_request()); })
    };
    mutant_that_keeps_request_ids_for_ever: request_ids_are_kept_up_to_their_window, {
        save: |save| delta(save, |delta| delta.request_window = usize::MAX)
    };
    mutant_that_keeps_the_oldest_request_ids: request_ids_are_kept_up_to_their_window, {
        save: |save| delta(save, |delta| delta.request_window = usize::MAX),
        bucket: |mut bucket| { bucket.requests.truncate(5); Some(bucket) }
    };
    mutant_that_merges_the_request_ids_of_whole_buckets: a_whole_bucket_replaces_its_request_ids, {
        save: |save| Some(match &save {
            Save::Bucket(name, change) => match &**change {
                BucketChange::Full(full) => {
                    let mut delta = BucketDelta::new(full.revision, full.counter, full.schema_version);
                    (delta.cleared, delta.upserts) = (true, full.records.clone());
                    (delta.requests, delta.request_window) = (full.requests.clone(), usize::MAX);
                    Save::Bucket(name.clone(), BucketChange::Delta(delta).into())
                }
                _ => save,
            },
            _ => save,
        })
    };
    mutant_that_loses_request_ids_on_a_clear: a_clear_keeps_request_ids, {
        save: |save| Some(match &save {
            Save::Bucket(name, change) => match &**change {
                BucketChange::Delta(delta) if delta.cleared => {
                    let records = delta.upserts.clone();
                    let mut full = BucketSnapshot::new(delta.schema_version, delta.revision, delta.counter, records);
                    full.requests.clone_from(&delta.requests);
                    Save::Bucket(name.clone(), BucketChange::Full(full).into())
                }
                _ => save,
            },
            _ => save,
        })
    };
    mutant_that_drops_a_bucket_but_not_its_request_ids: a_dropped_bucket_takes_its_request_ids_along, {
        save: |save| Some(match save {
            Save::DropBucket(name) => {
                let mut gone = BucketDelta::new(0, 0, u32::MAX);
                gone.cleared = true;
                Save::Bucket(name, BucketChange::Delta(gone).into())
            }
            other => other,
        }),
        bucket: |bucket| (bucket.schema_version != u32::MAX).then_some(bucket)
    };
    mutant_that_remembers_a_repeated_request_twice: a_repeated_commit_counts_once, {
        commit: |mutant, commit| {
            let mut notes = mutant.notes.lock().unwrap();
            let saves = std::mem::take(&mut commit.saves);
            commit.saves = saves.into_iter().filter_map(|save| {
                let again = match &save {
                    Save::Bucket(name, change) => {
                        notes.revisions.insert(name.clone(), change.revision()) == Some(change.revision())
                    }
                    _ => false,
                };
                delta(save, |delta| if again {
                    delta.requests.iter_mut().for_each(|request| request.revision += 100);
                })
            }).collect();
            Ok(())
        }
    };
    mutant_that_folds_the_case_of_buckets: bucket_names_never_collide, {
        bucket_name: |name| BucketName::new(name.as_str().to_ascii_lowercase()).unwrap()
    };
    mutant_that_shortens_the_names_of_buckets: bucket_names_never_collide, {
        bucket_name: |name| BucketName::new(name.as_str().chars().take(100).collect::<String>()).unwrap()
    };
    mutant_that_trims_the_names_of_buckets: bucket_names_never_collide, {
        bucket_name: |name| BucketName::new(name.as_str().trim_end_matches(['.', ' '])).unwrap_or_else(|_| name.clone())
    };
    mutant_that_decodes_the_names_of_buckets: bucket_names_never_collide, {
        bucket_name: |name| BucketName::new(name.as_str().replace("%2e", ".")).unwrap()
    };
    mutant_that_folds_the_case_of_stores: store_names_never_collide, {
        store_name: |name| StoreName::new(name.as_str().to_ascii_lowercase()).unwrap()
    };
    mutant_that_takes_channels_it_does_not_declare: channels_are_kept_or_refused, {
        declares: |declared| declared.with_channels(false)
    };
    mutant_that_loses_message_ids_that_are_no_text: message_ids_may_be_any_bytes, {
        save: |save| history(save, |update| for message in &mut update.append {
            message.message_id = String::from_utf8_lossy(message.message_id.as_bytes()).into_owned().into();
        })
    };
    mutant_that_loses_the_order_of_a_history: a_history_is_in_order, {
        channel: |mut channel| {
            channel.message_history.sort_by(|left, right| left.message_id.cmp(&right.message_id));
            channel
        }
    };
    mutant_that_orders_a_history_by_unsigned_timestamps: a_history_is_in_order, {
        channel: |mut channel| {
            channel.message_history.sort_by_key(|message| message.lamport_timestamp.cast_unsigned());
            channel
        }
    };
    mutant_that_forgets_evictions: evictions_remove_what_they_name, {
        save: |save| history(save, |update| update.evict.clear())
    };
    mutant_that_forgets_appends_beside_evictions: evictions_remove_what_they_name, {
        save: |save| history(save, |update| if !update.evict.is_empty() { update.append.clear() })
    };
    mutant_that_keeps_the_first_of_repeated_messages: a_repeated_message_is_there_once, {
        save: |save| history(save, |update| update.append.retain(|message| &*message.content != b"second"))
    };
    mutant_that_forgets_parts_of_the_state: a_channels_state_comes_back, {
        channel: |mut channel| { channel.meta.incoming_repair.clear(); channel }
    };
    mutant_that_loses_state_saved_beside_history: state_and_history_are_kept_side_by_side, {
        saves: |saves| if saves.iter().any(|save| matches!(save, Save::History(..))) {
            saves.retain(|save| !matches!(save, Save::ChannelMeta(..)));
        }
    };
    mutant_that_keeps_empty_hints: hints_go_with_their_messages, {
        save: |save| Some(match save {
            Save::Hint(id, message, hint) if hint.is_empty() => Save::Hint(id, message, b"\0".as_slice().into()),
            other => other,
        })
    };
    mutant_that_forgets_to_drop_channels: a_dropped_channel_is_gone, {
        save: |save| (!matches!(save, Save::DropChannel(_))).then_some(save)
    };
    mutant_that_refuses_empty_commits: empty_commits_are_fine, {
        commit: |_, commit| if commit.saves.is_empty() { Err(Error::invalid_argument("empty")) } else { Ok(()) }
    };
    mutant_that_refuses_a_revision_it_has: a_repeated_commit_counts_once, {
        commit: |mutant, commit| {
            let mut notes = mutant.notes.lock().unwrap();
            for save in &commit.saves {
                if let Save::Bucket(name, change) = save
                    && notes.revisions.insert(name.clone(), change.revision()) == Some(change.revision())
                {
                    return Err(Error::invalid_argument("seen before"));
                }
            }
            Ok(())
        }
    };
    mutant_whose_loads_see_half_of_a_commit: concurrent_loads_see_whole_commits, {
        one_by_one: true,
        saves: |saves| {
            let halves = saves.drain(..).flat_map(|save| {
                let half = |keep: fn(u64) -> bool| {
                    let half = delta(save.clone(), |delta| delta.upserts.retain(|record| keep(record.place())));
                    half.unwrap()
                };
                [half(|place| place < 15), half(|place| place >= 15)]
            });
            *saves = halves.collect();
        }
    };
    mutant_that_forgets_the_last_change_when_closed: changes_add_up_over_reopenings, {
        close: |mutant, _| { mutant.notes.lock().unwrap().forgetful = true; Ok(()) },
        commit: |mutant, commit| {
            if mutant.notes.lock().unwrap().forgetful { commit.saves.clear(); }
            Ok(())
        }
    };
    mutant_that_leaves_half_of_a_failed_commit: a_commit_that_fails_is_undone_as_declared, { one_by_one: true };
    mutant_that_leaves_half_of_a_dropped_commit: a_dropped_commit_is_done_or_not, { one_by_one: true };
    mutant_that_ignores_epochs: an_older_epoch_is_fenced, {
        commit: |mutant, commit| { commit.epoch = mutant.notes.lock().unwrap().epochs[&commit.store]; Ok(()) }
    };
    mutant_that_ignores_the_epochs_of_drops: an_older_epoch_is_fenced, {
        commit: |mutant, commit| {
            if commit.saves.iter().any(|save| matches!(save, Save::DropBucket(_))) {
                commit.epoch = mutant.notes.lock().unwrap().epochs[&commit.store];
            }
            Ok(())
        }
    };
    mutant_that_ignores_the_epochs_of_channel_states: an_older_epoch_is_fenced, {
        commit: |mutant, commit| {
            let only = |save: &Save| matches!(save, Save::ChannelMeta(..));
            if !commit.saves.is_empty() && commit.saves.iter().all(only) {
                commit.epoch = mutant.notes.lock().unwrap().epochs[&commit.store];
            }
            Ok(())
        }
    };
    mutant_that_ignores_the_epochs_of_hints: an_older_epoch_is_fenced, {
        commit: |mutant, commit| {
            if commit.saves.iter().any(|save| matches!(save, Save::Hint(..))) {
                commit.epoch = mutant.notes.lock().unwrap().epochs[&commit.store];
            }
            Ok(())
        }
    };
    mutant_that_takes_epochs_from_the_future: an_epoch_that_was_never_given_out_is_fenced, {
        commit: |mutant, commit| {
            let newest = mutant.notes.lock().unwrap().epochs[&commit.store];
            commit.epoch = commit.epoch.min(newest);
            Ok(())
        }
    };
    mutant_that_gives_an_epoch_out_twice: every_claim_is_higher, { claim: |_, _, _| Epoch(1) };
    mutant_that_fences_all_stores_at_once: stores_are_fenced_apart, {
        claim: |mutant, store, epoch| {
            mutant.notes.lock().unwrap().claimed_last = Some(store.clone());
            epoch
        },
        commit: |mutant, commit| {
            let last = mutant.notes.lock().unwrap().claimed_last.clone();
            let fenced = Error::Fenced { epoch: commit.epoch.0, current: 0 };
            if last.as_ref() == Some(&commit.store) { Ok(()) } else { Err(fenced) }
        }
    };
    mutant_that_refuses_to_close_twice: closing_twice_is_fine, {
        close: |mutant, store| {
            let mut notes = mutant.notes.lock().unwrap();
            if notes.closed.contains(store) { return Err(Error::Stopping); }
            notes.closed.push(store.clone());
            Ok(())
        }
    };
    mutant_that_stays_closed: a_closed_store_can_be_claimed_again, {
        close: |mutant, store| { mutant.notes.lock().unwrap().closed.push(store.clone()); Ok(()) },
        commit: |mutant, commit| {
            if mutant.notes.lock().unwrap().closed.contains(&commit.store) { Err(Error::Stopping) } else { Ok(()) }
        }
    };
    mutant_that_closes_everything_with_one_store: closing_one_store_leaves_the_others, {
        close: |mutant, store| { mutant.notes.lock().unwrap().closed.push(store.clone()); Ok(()) },
        commit: |mutant, _| if mutant.notes.lock().unwrap().closed.is_empty() { Ok(()) } else { Err(Error::Stopping) }
    };
    mutant_whose_quarantine_moves_nothing: quarantine_takes_what_it_was_told, { quarantines: false };
    mutant_that_makes_up_buckets: nothing_is_loaded_of_what_was_never_saved, {
        no_bucket: || Some(BucketSnapshot::default())
    };
    mutant_that_takes_changes_it_does_not_declare: changes_are_taken_or_refused, {
        declares: |declared| declared.with_incremental(false)
    };
    mutant_that_takes_changes_for_whole_buckets: changes_are_taken_or_refused, {
        save: |save| Some(match &save {
            Save::Bucket(name, change) => match &**change {
                BucketChange::Delta(delta) => {
                    let full = BucketSnapshot::new(delta.schema_version, delta.revision, 0, delta.upserts.clone());
                    Save::Bucket(name.clone(), BucketChange::Full(full).into())
                }
                _ => save,
            },
            _ => save,
        })
    };
    mutant_that_folds_the_case_of_channels: channel_names_never_collide, {
        channel_name: |id| ChannelId::new(id.as_str().to_ascii_lowercase()).unwrap()
    };
    mutant_that_refuses_the_lower_levels: every_declared_durability_is_taken, {
        commit: |_, commit| match commit.durability {
            Durability::Fsync => Ok(()),
            _ => Err(Error::unsupported("less")),
        }
    };
    mutant_that_loses_a_commit_beside_another: concurrent_commits_are_all_there, { loses_races: true };
    mutant_whose_dropped_load_locks_everybody_out: a_dropped_load_harms_nobody, { locks_by_mark: true };
    mutant_that_lets_two_owners_commit: a_second_owner_is_locked_out_or_fences, {
        commit: |mutant, commit| { commit.epoch = mutant.notes.lock().unwrap().epochs[&commit.store]; Ok(()) }
    };
    mutant_that_refuses_a_change_of_nothing: empty_commits_are_fine, {
        commit: |_, commit| {
            let nothing = |save: &Save| matches!(save, Save::Bucket(_, change) if change.is_empty());
            if commit.saves.iter().any(nothing) { Err(Error::invalid_argument("empty")) } else { Ok(()) }
        }
    };
    mutant_whose_backup_is_empty: a_backup_opens_with_what_was_committed, {
        backup: |_, _| Ok(MemoryAdapter::default())
    };
    mutant_whose_backup_lacks_the_last_commit: a_backup_opens_with_what_was_committed, {
        backup: |mutant, _| Ok(mutant.notes.lock().unwrap().before_last.clone().unwrap())
    };
    mutant_whose_backup_is_the_original: a_backup_opens_with_what_was_committed, {
        backup: |mutant, _| Ok(mutant.sound())
    };
    mutant_that_makes_a_backup_over_another: a_backup_opens_with_what_was_committed, { overwrites_backups: true };
    mutant_whose_backup_is_of_a_moment_before: a_backup_beside_commits_is_of_one_moment, {
        backup: |mutant, _| Ok(mutant.notes.lock().unwrap().before_last.clone().unwrap())
    };
    mutant_whose_backup_has_half_of_a_commit: a_backup_beside_commits_is_of_one_moment, { one_by_one: true };
    mutant_that_compacts_all_away: compacting_keeps_everything, { compacts: |_| Ok(MemoryAdapter::default()) };
    mutant_that_compacts_the_last_commit_away: compacting_keeps_everything, {
        compacts: |mutant| Ok(mutant.notes.lock().unwrap().before_last.clone().unwrap())
    };
    mutant_whose_compaction_fails: compacting_keeps_everything, {
        compacts: |_| Err(Error::invalid_argument("not now"))
    };
    mutant_that_forgets_every_second_delete_of_a_long_life: any_commits_leave_what_plain_maps_would, {
        save: |save| delta(save, |delta| if delta.deletes.len() > 2 { delta.deletes.truncate(2) })
    };
}

#[tokio::test]
async fn mutant_that_survives_no_restart_though_it_says_so() {
    let promise = PROMISES.iter().find(|promise| promise.name == "data_survives_a_restart_if_declared").unwrap();
    let declared = MemoryAdapter::default().capabilities().with_survives_restart(true);
    let forgetful = || std::future::ready(Ok(MemoryAdapter::default()));
    promise.examine(&forgetful, declared).await.expect_err("the kit passed a broken adapter");
}

#[tokio::test]
async fn a_sound_one_breaks_no_promise() {
    for promise in PROMISES {
        if let Err(broken) = examine(promise.name, SOUND).await {
            panic!("{}: {broken}", promise.name);
        }
    }
}
