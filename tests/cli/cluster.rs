//! `millstream cluster`, and training sets and queries on it: what a cluster answers is what this machine does, byte for byte.

use std::{
    fmt::Write,
    fs,
    io::{BufRead, BufReader, Read},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, Stdio},
};

use tempfile::TempDir;

use super::{complaint, millstream, path, printed, project};

/// Sets with logs, one with windows and a condition, and one that is its file; and vectors over them.
const SPREAD: &str = "\
name: spread
feature_sets:
  cards:
    keys: [card_id]
    types: { card_id: int64 }
    features: { limit: float64, shop: string }
    timestamp: at
    created: known
    ttl: 20d
    online: { local: { path: state/cards, durability: os } }
    offline: { path: features/cards }
  payments:
    keys: [card_id]
    types: { card_id: int64, amount: float64, country: string }
    features: {}
    timestamp: at
    aggregates:
      - { column: amount, functions: [count, sum, p50], windows: [1d, 10d] }
      - { column: amount, functions: [avg, max], windows: [10d], where: \"country <> 'US' AND amount > 10\", name: abroad }
    lateness: 400d
    online: { local: { path: state/payments, durability: os } }
    offline: { path: features/payments }
  shops:
    keys: [shop]
    source: shops.csv
    types: { shop: string, rank: int64, at: timestamp }
    timestamp: at
feature_vectors:
  windows: { features: ['payments.amount_sum_10d', payments.amount_p50_1d] }
  abroad: { features: [payments.abroad_avg_10d AS abroad, payments.abroad_max_10d] }
  labelled:
    features: [cards.limit AS most, shops.rank]
    by: { shops: cards.shop }
    policies: { most: { missing: { default: -1 } } }
    label: { feature: payments.amount_count_1d AS later, after: 2d }
    with: { share: rank / most }
  newest: { features: [cards.limit, shops.rank], by: { shops: cards.shop } }
  strict: { features: [cards.limit], missing: fail }
graphs:
  score:
    input: { card_id: int64 }
    steps: { known: { enrich: { set: cards, missing: null } } }
    respond: known
";

/// A number that looks like chance, the same each time.
fn scattered(row: u64, salt: u64) -> u64 {
    let bits = (row + 1).wrapping_add(salt << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (bits ^ (bits >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 24
}

/// A time within some months.
fn at(row: u64, salt: u64) -> String {
    let minutes = scattered(row, salt) % (80 * 24 * 60);
    let day = minutes / (24 * 60);
    format!("2026-0{}-{:02}T{:02}:{:02}:00Z", 1 + day / 28, 1 + day % 28, minutes / 60 % 24, minutes % 60)
}

/// The project, with rows in its logs, and a spine.
fn filled() -> TempDir {
    let folder = project(SPREAD);
    let mut cards = "card_id,limit,shop,at,known\n".to_owned();
    let mut payments = "card_id,amount,country,at\n".to_owned();
    let mut spine = "note,card_id,asked\n".to_owned();
    for row in 0..400 {
        let limit = scattered(row, 1) as f64 / 7.0;
        let shop = scattered(row, 2) % 9;
        let (event, known) = (at(row, 3), at(row, 4));
        writeln!(cards, "{},{limit},s{shop},{event},{known}", scattered(row, 5) % 40).unwrap();
    }
    for row in 0..1500 {
        let amount = scattered(row, 6) as f64 % 1000.0 / 3.0;
        let country = ["US", "FR", ""][(scattered(row, 7) % 3) as usize];
        writeln!(payments, "{},{amount},{country},{}", scattered(row, 8) % 40, at(row, 9)).unwrap();
    }
    for row in 0..500 {
        writeln!(spine, "{row},{},{}", scattered(row, 10) % 44, at(row, 11)).unwrap();
    }
    let shops: String = (0..9).map(|shop| format!("s{shop},{shop},2026-01-1{shop}T00:00:00Z\n")).collect();
    fs::write(path(&folder, "shops.csv"), format!("shop,rank,at\n{shops}")).unwrap();
    fs::write(path(&folder, "spine.csv"), spine).unwrap();
    let root = folder.path().to_str().unwrap();
    for (set, rows) in [("cards", cards), ("payments", payments)] {
        let file = path(&folder, &format!("{set}.csv"));
        fs::write(&file, rows).unwrap();
        printed(&["features", "--project", root, "ingest", set, &file]);
    }
    folder
}

/// A process of a cluster, and what it says.
struct Process {
    child: Child,
    log: BufReader<ChildStderr>,
    address: SocketAddr,
}

impl Process {
    /// Started and listening: `words` stand before the address in its log.
    fn start(arguments: &[&str], words: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_millstream"))
            .arg("cluster")
            .args(arguments)
            .args(["--listen", "127.0.0.1:0"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains(words) {
            line.clear();
            assert_ne!(log.read_line(&mut line).unwrap(), 0, "the log ends without `{words}`");
        }
        let rest = line.split_once(words).unwrap().1;
        let address: String =
            rest.chars().take_while(|char| char.is_ascii_digit() || ".:".contains(*char)).collect();
        let address: SocketAddr = address.parse().unwrap();
        while TcpStream::connect(address).is_err() {
            assert!(child.try_wait().unwrap().is_none(), "{arguments:?} ended");
            std::thread::yield_now();
        }
        Self { child, log, address }
    }

    fn terminate(&self) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    }

    /// Asked to stop, it says so and ends well.
    fn end(mut self) {
        self.terminate();
        let mut rest = String::new();
        self.log.read_to_string(&mut rest).unwrap();
        let status = self.child.wait().unwrap();
        assert!(
            status.success() && rest.contains("stopping") && !rest.contains("cut off"),
            "{status}: {rest}"
        );
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that has ended already cannot be killed, which is well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A scheduler and two executors, and where these keep what they have computed.
struct Cluster {
    scheduler: Process,
    executors: [Process; 2],
    work: TempDir,
}

impl Cluster {
    fn start() -> Self {
        let scheduler = Process::start(&["scheduler"], "scheduling on ");
        let work = tempfile::tempdir().unwrap();
        let (address, folder) = (scheduler.address.to_string(), work.path().to_str().unwrap().to_owned());
        let arguments =
            ["executor", "--scheduler", &address, "--work-dir", &folder, "--tasks", "2", "--memory", "1GiB"];
        let executors = [(); 2].map(|()| Process::start(&arguments, "executing on "));
        Self { scheduler, executors, work }
    }

    fn engine(&self) -> String {
        format!("ballista={}", self.scheduler.address)
    }

    /// The folders of jobs that executors have worked on.
    fn jobs(&self) -> usize {
        let folders = |folder: &Path| -> Vec<PathBuf> {
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
        };
        let executors = folders(self.work.path());
        executors.iter().map(|executor| folders(executor).len()).sum()
    }
}

#[test]
fn a_cluster_of_processes_answers_what_one_machine_does() {
    let folder = filled();
    let root = folder.path().to_str().unwrap();
    let cluster = Cluster::start();
    let engine = cluster.engine();

    let spine = path(&folder, "spine.csv");
    let query = "SELECT card_id, _event AS asked, shop AS place FROM cards ORDER BY _sequence";
    for vector in ["windows", "abroad", "labelled"] {
        for spine in [["--spine", &spine], ["--spine-sql", query]] {
            let train = |engine: &[&str], file: &str| {
                let file = path(&folder, file);
                let arguments =
                    ["features", "--project", root, "history", vector, "--time", "asked", "--output", &file];
                let told = printed(&[&arguments[..], &spine, engine].concat());
                (told, fs::read_to_string(file).unwrap())
            };
            let here = train(&[], "here.jsonl");
            let there = train(&["--engine", &engine, "--partitions", "3"], "there.jsonl");
            assert!(here.1.lines().count() >= 400, "{}", here.0);
            assert!(here == there, "{vector} {spine:?}: {}{}", here.0, there.0);
        }
    }
    let worked = cluster.jobs();
    assert!(worked >= 6, "{worked} jobs left something");

    for (query, ordered) in [
        (
            "SELECT country, count(*) AS n, max(amount) AS most FROM payments GROUP BY country ORDER BY country",
            true,
        ),
        ("SELECT card_id, shop, rank FROM cards JOIN shops USING (shop)", false),
        ("SELECT * FROM newest", false),
    ] {
        let ask = |engine: &[&str]| {
            let lines = printed(&[&["sql", "--project", root, query], engine].concat());
            let mut lines: Vec<_> = lines.lines().map(str::to_owned).collect();
            if !ordered {
                lines.sort_unstable();
            }
            lines
        };
        let (here, there) = (ask(&[]), ask(&["--engine", &engine]));
        assert!(here.len() > 2 && here == there, "{query}: {here:?} {there:?}");
    }

    let train = path(&folder, "train.jsonl");
    let strict = ["features", "--project", root, "history", "strict", "--time", "asked", "--output", &train];
    let said = complaint(&[&strict[..], &["--spine", &spine, "--engine", &engine]].concat());
    assert!(said.contains("no row for card_id") && said.contains("feature set `cards`"), "{said}");
    assert!(!Path::new(&train).exists());

    let Cluster { scheduler, executors, work } = cluster;
    executors.into_iter().for_each(Process::end);
    assert_eq!(fs::read_dir(work.path()).unwrap().count(), 0, "executors leave nothing behind");
    scheduler.end();
    let gone = complaint(&["sql", "--project", root, "SELECT * FROM shops", "--engine", &engine]);
    assert!(gone.contains("no scheduler of a cluster answers at 127.0.0.1:"), "{gone}");
}

#[test]
fn flags_that_lead_nowhere_are_refused() {
    let folder = project(SPREAD);
    let root = folder.path().to_str().unwrap();
    let usage = |arguments: &[&str]| {
        let output = millstream(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let wrong = usage(&["sql", "--project", root, "SELECT 1", "--engine", "ballista=https://here:50050"]);
    assert!(wrong.contains("connections to a cluster are plain"), "{wrong}");
    let wrong = usage(&["cluster", "executor", "--scheduler", "here"]);
    assert!(wrong.contains("`here` is no address of a scheduler"), "{wrong}");

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for process in [&["scheduler"][..], &["executor", "--scheduler", "127.0.0.1:1"]] {
        let said = complaint(&[&["cluster"], process, &["--listen", &address]].concat());
        assert!(said.contains(&format!("cannot listen on {address}")), "{said}");
    }
    let open = ["cluster", "executor", "--scheduler", "127.0.0.1:1", "--listen", "0.0.0.0:0"];
    let said = complaint(&open);
    assert!(said.contains("is no address that others reach; add --host"), "{said}");
}
