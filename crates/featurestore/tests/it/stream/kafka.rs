//! Topics of the mock cluster that comes with the client library: brokers on real sockets, in this process.

use std::sync::Arc;

use bytes::Bytes;
use millstream_featurestore::{
    WritableSet,
    stream::{AtGap, Intake, KafkaFeed, KafkaSpec, Phase},
};
use rdkafka::{
    ClientConfig,
    mocking::MockCluster,
    producer::{DefaultProducerContext, FutureProducer, FutureRecord},
};

use super::{Json, Watch, catch_up, event, in_folder, in_memory, known, mark, sums};

struct Topic {
    cluster: MockCluster<'static, DefaultProducerContext>,
    producer: FutureProducer,
}

impl Topic {
    fn of(partitions: i32) -> Self {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("tx", partitions, 1).unwrap();
        let producer =
            ClientConfig::new().set("bootstrap.servers", cluster.bootstrap_servers()).create().unwrap();
        Self { cluster, producer }
    }

    async fn publish(&self, partition: i32, messages: impl IntoIterator<Item = Bytes>) {
        let mut sent = Vec::new();
        for message in messages {
            let record = FutureRecord::<(), [u8]>::to("tx").partition(partition).payload(&message[..]);
            sent.push(self.producer.send_result(record).map_err(|(error, _)| error).unwrap());
        }
        for sent in sent {
            sent.await.unwrap().map_err(|(error, _)| error).unwrap();
        }
    }

    fn intake(&self, set: &Arc<WritableSet>) -> Intake<KafkaFeed> {
        let spec = format!(r#"{{"servers": "{}", "topic": "tx"}}"#, self.cluster.bootstrap_servers());
        let spec: KafkaSpec = serde_json::from_str(&spec).unwrap();
        Intake::new("tx", KafkaFeed::new(&spec, "kafka:tx".into()).unwrap(), Arc::clone(set), Arc::new(Json))
    }
}

fn run(test: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(2).enable_all().build().unwrap().block_on(test);
}

#[test]
fn each_partition_goes_on_where_the_set_stands() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let topic = Topic::of(3);
        for (from, to) in [(0, 1_000), (1_000, 1_000), (1_000, 1_300)] {
            for partition in 0..2 {
                topic.publish(partition, (from..to).map(|n| event(partition.into(), n))).await;
            }
            let set = in_folder(dir.path());
            catch_up(topic.intake(&set)).await;
            for partition in 0..2 {
                assert_eq!(known(&set, partition.into()), sums(0..to));
                assert_eq!(mark(&set, "kafka:tx", partition), Some(to as u64 - 1));
            }
            assert_eq!(mark(&set, "kafka:tx", 2), None);
        }
    });
}

#[test]
fn a_broker_that_goes_and_comes_again_costs_no_event() {
    run(async {
        let topic = Topic::of(1);
        let (set, watch) = (in_memory(), Watch::new());
        let intake = topic.intake(&set).most(10).meter(Arc::clone(&watch) as _);
        let progress = intake.progress();
        let publishing = async {
            for round in 1..=5 {
                topic.publish(0, (0..100).map(|n| event(1, n))).await;
                watch.dealt(round * 100).await;
                topic.cluster.broker_down(1).unwrap();
                topic.cluster.broker_up(1).unwrap();
            }
            assert_eq!(progress.standing().written, 500);
        };
        tokio::select! { never = intake.run() => match never {}, () = publishing => {} }
        assert_eq!(known(&set, 1), sums((0..5).flat_map(|_| 0..100)));
    });
}

#[test]
fn a_topic_that_is_not_there_or_was_made_anew_is_said() {
    run(async {
        let topic = Topic::of(1);
        topic.publish(0, (0..5).map(|n| event(1, n))).await;
        let set = in_memory();
        catch_up(topic.intake(&set)).await;
        let anew = Topic::of(1);
        anew.publish(0, [event(1, 0)]).await;
        let intake = anew.intake(&set).at_gap(AtGap::Continue);
        let progress = intake.progress();
        let troubled = async {
            while progress.standing().trouble.is_none() {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! { never = intake.run() => match never {}, () = troubled => {} }
        let standing = progress.standing();
        let trouble = standing.trouble.unwrap();
        assert!(
            trouble.contains("taken messages up to 4 of partition 0 of kafka:tx, which ends before 1"),
            "{trouble}"
        );
        assert_eq!(standing.phase, Phase::Stopped);
    });
}
