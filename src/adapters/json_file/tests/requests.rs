//! Request ids are kept at the cost of a line, and files from before there were any are read as having none.

use super::*;
use crate::adapters::json_file::seal;
use crate::base::error::Error;

/// Written by the release before request ids were kept: a checkpoint, and a journal with one line.
const BEFORE: [&[u8]; 2] = [
    include_bytes!("../../../../tests/vectors/before_request_ids/bucket.users.json"),
    include_bytes!("../../../../tests/vectors/before_request_ids/bucket.users.jsonl"),
];

fn disk_from_before() -> (PowerCutDisk, PathBuf, PathBuf) {
    let disk = PowerCutDisk::default();
    let (checkpoint, journal) = bucket_files(Path::new("/data"), "users");
    disk.plant(&checkpoint, Some(BEFORE[0]));
    disk.plant(&journal, Some(BEFORE[1]));
    (disk, checkpoint, journal)
}

fn text(disk: &PowerCutDisk, path: &Path) -> String {
    String::from_utf8(disk.contents(path).unwrap()).unwrap()
}

fn ids(snapshot: Option<BucketSnapshot>) -> Vec<u64> {
    snapshot.unwrap().requests.iter().map(|request| request.revision).collect()
}

#[tokio::test]
async fn files_from_before_request_ids_are_read_as_having_none_and_go_on_as_they_were() {
    let (disk, checkpoint, journal) = disk_from_before();
    let claimed = Claimed::on(&disk).await.unwrap();
    let loaded = claimed.load("users").await.unwrap().unwrap();
    assert_eq!((loaded.revision, loaded.counter, loaded.records.len()), (2, 3, 3));
    assert_eq!(loaded.requests, []);
    claimed.commit(vec![Save::Bucket(bucket("users"), put(3, 4, "d"))]).await.unwrap();
    assert_eq!(disk.contents(&checkpoint).unwrap(), BEFORE[0], "a line was enough");
    assert!(text(&disk, &journal).lines().next().unwrap().contains("\"version\":1,"));
    claimed.close().await;
    let loaded = Claimed::on(&disk).await.unwrap().load("users").await.unwrap().unwrap();
    assert_eq!((loaded.revision, loaded.records.len(), loaded.requests), (3, 4, vec![]));
}

#[tokio::test]
async fn the_first_request_id_costs_a_checkpoint_and_each_that_follows_a_line() {
    let (disk, checkpoint, journal) = disk_from_before();
    let claimed = Claimed::on(&disk).await.unwrap();
    disk.take_log();
    let save = |revision| vec![Save::Bucket(bucket("users"), put_by_request(revision, 4, "d", 2))];
    claimed.commit(save(3)).await.unwrap();
    assert!(disk.take_log().contains(&"rename bucket.users.json".to_owned()));
    assert!(text(&disk, &checkpoint).contains("\n  \"version\": 2,\n"));
    assert!(text(&disk, &journal).lines().next().unwrap().contains("\"version\":2,"));
    for revision in 4..=6 {
        claimed.commit(save(revision)).await.unwrap();
        assert_eq!(disk.take_log(), ["write_at bucket.users.jsonl", "sync_data bucket.users.jsonl"]);
    }
    assert_eq!(ids(claimed.load("users").await.unwrap()), [5, 6]);
    claimed.close().await;
    let claimed = Claimed::on(&disk).await.unwrap();
    assert_eq!(ids(claimed.load("users").await.unwrap()), [5, 6]);
    claimed.commit(save(7)).await.unwrap();
    assert!(!disk.take_log().contains(&"rename bucket.users.json".to_owned()), "nor after opening");
    assert_eq!(ids(claimed.load("users").await.unwrap()), [6, 7]);
}

#[tokio::test]
async fn a_bucket_without_request_ids_is_written_as_before_there_were_any() {
    let disk = PowerCutDisk::default();
    let claimed = Claimed::on(&disk).await.unwrap();
    let loaded = {
        let (before, ..) = disk_from_before();
        Claimed::on(&before).await.unwrap().load("users").await.unwrap().unwrap()
    };
    let [first, second] = [&loaded.records[..2], &loaded.records[2..]];
    let full = BucketChange::Full(BucketSnapshot::new(1, 1, 2, first.to_vec()));
    let mut delta = BucketDelta::new(2, 3, 1);
    // A window says nothing where there are no requests.
    (delta.upserts, delta.request_window) = (second.to_vec(), 5);
    claimed.commit(vec![Save::Bucket(bucket("users"), Arc::new(full))]).await.unwrap();
    claimed.commit(vec![Save::Bucket(bucket("users"), Arc::new(BucketChange::Delta(delta)))]).await.unwrap();
    let (checkpoint, journal) = bucket_files(Path::new("/data"), "users");
    // But for when it was saved, and the checksums that follow from that.
    let told = |text: &str| {
        let lines = text.lines().filter(|line| !line.contains("\"saved_at\"") && !line.contains("\"checksum\""));
        let behind = |line: &str| line.split_once("\"follows\"").map_or(line, |(before, _)| before).to_owned();
        lines
            .map(|line| match line.split_once("\"crc\":\"") {
                Some((_, sealed)) => behind(sealed.get(8..).unwrap()),
                None => line.to_owned(),
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(told(&text(&disk, &checkpoint)), told(std::str::from_utf8(BEFORE[0]).unwrap()));
    assert_eq!(told(&text(&disk, &journal)), told(std::str::from_utf8(BEFORE[1]).unwrap()));
}

#[tokio::test]
async fn request_ids_are_written_for_people_too() {
    let disk = PowerCutDisk::default();
    let claimed = Claimed::on(&disk).await.unwrap();
    let snapshot = BucketSnapshot { requests: vec![request(3), request(9)], ..BucketSnapshot::new(1, 9, 0, vec![]) };
    claimed.commit(vec![Save::Bucket(bucket("b"), Arc::new(BucketChange::Full(snapshot)))]).await.unwrap();
    let (checkpoint, _) = bucket_files(Path::new("/data"), "b");
    let text = text(&disk, &checkpoint);
    let (_, rest) = text.split_once("  \"records\"").unwrap();
    let line = |revision: u64| {
        let fingerprint = request(revision).fingerprint;
        format!(
            "    {{\"id\":\"request-{revision}\",\"fingerprint\":{fingerprint},\"keys\":[\"k\",7],\"removed\":0,\
             \"inserted\":false,\"revision\":{revision}}}"
        )
    };
    assert_eq!(rest, format!(": [],\n  \"requests\": [\n{},\n{}\n  ]\n}}\n", line(3), line(9)));
}

#[tokio::test]
async fn a_checkpoint_whose_version_is_not_that_of_its_contents_is_refused() {
    let sealed = |text: &str| {
        let rest = text.split_once("\"checksum\": \"").unwrap().1.get(9..).unwrap().to_owned();
        format!("{}{}\"{rest}", seal::DOCUMENT, seal::digits(crc32c::crc32c(rest.as_bytes())))
    };
    let old = std::str::from_utf8(BEFORE[0]).unwrap();
    assert_eq!(sealed(old), old);
    let with = old.replace("\n  ]\n}", "\n  ],\n  \"requests\": [\n    {\"id\":\"a\",\"fingerprint\":1,\"keys\":[],\"removed\":0,\"inserted\":false,\"revision\":1}\n  ]\n}");
    assert_ne!(with, old);
    for wrong in [with.clone(), old.replace("\"version\": 1", "\"version\": 2")] {
        let (disk, checkpoint, _) = disk_from_before();
        disk.plant(&checkpoint, Some(sealed(&wrong).as_bytes()));
        let loaded = Claimed::on(&disk).await.unwrap().load("users").await;
        let Err(Error::Corrupt { at, reason }) = &loaded else { panic!("{loaded:?}") };
        assert_eq!((at.container.as_str(), reason.contains("version")), ("/data/shop/bucket.users.json", true));
    }
}
