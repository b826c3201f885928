//! What live values are compared with.

mod by_magnitude;
mod spec;

use std::{
    collections::BTreeMap,
    fmt,
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow::{
    array::{ArrayRef, AsArray, RecordBatch},
    compute::cast,
    datatypes::{DataType, Float64Type, Schema, SchemaRef},
    error::ArrowError,
};
use parquet::{
    arrow::{ProjectionMask, arrow_reader::ParquetRecordBatchReaderBuilder},
    errors::ParquetError,
};
use serde::{Deserialize, Serialize};

use crate::{
    counting::Counting,
    drift::{Bins, DriftError},
    layout::{Kind, Layout, Watching, kind},
    pane::EdgePane,
    sketch::{KEPT, Labels, Merge, Sketch},
    values,
};

pub use self::spec::{Past, ReferenceSpec};

/// The values of a training set, a model's statistics or a past stretch of time, as counts, and the bins that they suggest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reference {
    /// What it was made of, for people.
    pub source: String,
    /// Which bins numeric columns are counted in.
    rule: BinRule,
    /// How each column is counted.
    bins: BTreeMap<String, ReferenceColumn>,
    /// The counts.
    pub pane: EdgePane,
}

/// How a column of a reference is counted, and live values with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReferenceColumn {
    /// In bins that these ascending edges cut; an edge belongs to the bin above it.
    Numeric {
        /// The edges.
        edges: Vec<f64>,
    },
    /// By category.
    Categorical {
        /// The most frequent ones, the most frequent first.
        known: Vec<String>,
    },
}

/// Which bins numeric columns are counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BinRule {
    /// So many of equal parts of the reference.
    Quantiles(usize),
    /// As MLRun does: 20 of equal width, and one on either side for what lies beyond.
    Mlrun,
    /// As NannyML does: Doane's rule, and what lies beyond.
    Doane,
}

impl Default for BinRule {
    fn default() -> Self {
        Self::Quantiles(10)
    }
}

impl fmt::Display for BinRule {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quantiles(bins) => write!(out, "{bins} bins of equal parts"),
            Self::Mlrun => out.write_str("MLRun's bins"),
            Self::Doane => out.write_str("NannyML's bins"),
        }
    }
}

/// How a reference is made.
#[derive(Clone, Debug, Default)]
pub struct ReferenceOptions<'o> {
    /// The bins of numeric columns.
    pub bins: BinRule,
    /// Whole numbers that are categories.
    pub categorical: &'o [String],
    /// Columns whose values divide the rows.
    pub segments: &'o [String],
    /// Segments of a column.
    pub most_segments: usize,
}

/// Why there is no reference.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReferenceError {
    /// The file cannot be read.
    #[error("{}: cannot be read", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not what its name says.
    #[error("{}: is no {wanted}", file.display())]
    Malformed {
        /// The file.
        file: PathBuf,
        /// What it should be.
        wanted: &'static str,
        /// Why it is not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// There is no reader for such files.
    #[error("{}: a reference is a .parquet, .csv or .json file", file.display())]
    UnknownFormat {
        /// The file.
        file: PathBuf,
    },
    /// It has too many rows for a file that is read whole.
    #[error("{}: has more than {MOST_CSV_BYTES} bytes; write it as Parquet", file.display())]
    TooLarge {
        /// The file.
        file: PathBuf,
    },
    /// The statistics were made in another way than they are to be used.
    #[error("{}: {}; write the statistics anew, or name the training set in their place", file.display(), .problems.join("; "))]
    Unsuited {
        /// The file.
        file: PathBuf,
        /// Every difference.
        problems: Vec<String>,
    },
    /// Its columns cannot be watched as asked.
    #[error("{}", .problems.join("; "))]
    Columns {
        /// Every mistake.
        problems: Vec<String>,
    },
    /// A column has no bins.
    #[error("column `{column}`")]
    Bins {
        /// The column.
        column: String,
        /// Why.
        #[source]
        source: DriftError,
    },
    /// Rows could not be taken in.
    #[error("rows of the reference cannot be read")]
    Rows(#[from] ArrowError),
}

/// A CSV file of more bytes is refused: it is held in memory while it is read.
pub const MOST_CSV_BYTES: u64 = 2 << 30;
/// Rows that are read at a time.
const BATCH_ROWS: usize = 8192;

type Batches = Box<dyn Iterator<Item = Result<RecordBatch, ArrowError>>>;

impl Reference {
    /// Reads a training set (`.parquet`, `.csv`), or the statistics (`.json`) that [`Self::to_json`] has written of one.
    ///
    /// # Errors
    /// When the file cannot be read, or is not what its name says; and when statistics were made in other bins, or without columns that
    /// `options` say are categories or divide the rows.
    pub fn read(file: &Path, options: &ReferenceOptions<'_>) -> Result<Self, ReferenceError> {
        let extension =
            file.extension().and_then(|extension| extension.to_str()).map(str::to_ascii_lowercase);
        let mut reference = match extension.as_deref() {
            Some("parquet") => Self::read_parquet(file, options)?,
            Some("csv") => Self::of(&read_csv(file)?, options)?,
            Some("json") => {
                let reference = Self::read_json(file)?;
                let problems = reference.differences(options);
                return match problems[..] {
                    [] => Ok(reference),
                    _ => Err(ReferenceError::Unsuited { file: file.to_path_buf(), problems }),
                };
            }
            _ => return Err(ReferenceError::UnknownFormat { file: file.to_path_buf() }),
        };
        reference.source =
            file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Ok(reference)
    }

    /// The rows of a training set (`.parquet`, `.csv`), some columns of them; those that are not there are left out.
    ///
    /// # Errors
    /// As [`Self::read`]; statistics have no rows.
    pub fn rows_of(file: &Path, columns: &[&str]) -> Result<Vec<RecordBatch>, ReferenceError> {
        let batches: Batches = match file.extension() {
            Some(extension) if extension.eq_ignore_ascii_case("parquet") => {
                Parquet { file }.batches(None, None)?
            }
            Some(extension) if extension.eq_ignore_ascii_case("csv") => {
                Box::new(read_csv(file)?.into_iter().map(Ok))
            }
            _ => return Err(ReferenceError::UnknownFormat { file: file.to_path_buf() }),
        };
        let picked = |batch: RecordBatch| {
            let places: Vec<usize> =
                columns.iter().filter_map(|name| batch.schema().index_of(name).ok()).collect();
            batch.project(&places)
        };
        batches.map(|batch| Ok(picked(batch?)?)).collect()
    }

    /// Of rows in memory, which have one schema.
    ///
    /// # Errors
    /// When columns cannot be watched as `options` ask.
    pub fn of(batches: &[RecordBatch], options: &ReferenceOptions<'_>) -> Result<Self, ReferenceError> {
        let schema = batches.first().map_or_else(|| Arc::new(Schema::empty()), RecordBatch::schema);
        let open = |column: Option<usize>| -> Result<Batches, ReferenceError> {
            // What reads them later owns them.
            let batches = batches.to_vec();
            let batches = batches.into_iter();
            Ok(match column {
                Some(column) => Box::new(batches.map(move |batch| batch.project(&[column]))),
                None => Box::new(batches.map(Ok)),
            })
        };
        Self::made(&schema, open, options)
    }

    fn read_parquet(file: &Path, options: &ReferenceOptions<'_>) -> Result<Self, ReferenceError> {
        let table = Parquet { file };
        let schema = Arc::clone(table.open()?.schema());
        let open = |column: Option<usize>| table.batches(column, None);
        Self::made(&schema, open, options)
    }

    /// Counts rows in memory as live rows beside this reference are counted.
    ///
    /// # Errors
    /// As [`Self::of`].
    pub fn count_rows(&self, batches: &[RecordBatch]) -> Result<EdgePane, ReferenceError> {
        let Some(first) = batches.first() else { return Ok(EdgePane::new()) };
        let watching = Watching { reference: Some(self), ..Watching::default() };
        let layout = Layout::new("live", first.schema_ref(), &watching);
        let layout = layout.map_err(|problems| ReferenceError::Columns { problems })?;
        counted(&Arc::new(layout), batches.iter().cloned().map(Ok))
    }

    /// Counts the rows of a file as live rows beside this reference are counted, with a thread for each core.
    ///
    /// # Errors
    /// As [`Self::read`], and when the columns do not allow what `options` ask.
    pub fn count(&self, file: &Path, options: &ReferenceOptions<'_>) -> Result<EdgePane, ReferenceError> {
        let watching = Watching {
            categorical: options.categorical,
            segments: options.segments,
            most_segments: options.most_segments,
            reference: Some(self),
            ..Watching::default()
        };
        let layout = |schema: &Schema| {
            let layout = Layout::new("live", schema, &watching);
            layout.map(Arc::new).map_err(|problems| ReferenceError::Columns { problems })
        };
        if file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv")) {
            let batches = read_csv(file)?;
            let schema = batches.first().map_or_else(|| Arc::new(Schema::empty()), RecordBatch::schema);
            return counted(&layout(&schema)?, batches.into_iter().map(Ok));
        }
        let table = Parquet { file };
        let opened = table.open()?;
        let (layout, groups) = (layout(opened.schema())?, opened.metadata().num_row_groups());
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(groups.max(1));
        let part = |thread: usize| {
            let own = (thread..groups).step_by(threads).collect();
            counted(&layout, table.batches(None, Some(own))?)
        };
        let parts: Vec<_> = std::thread::scope(|scope| {
            let running: Vec<_> = (0..threads).map(|thread| scope.spawn(move || part(thread))).collect();
            running.into_iter().map(std::thread::ScopedJoinHandle::join).collect()
        });
        let mut whole = EdgePane::new();
        for part in parts {
            // A thread that panicked goes on panicking here.
            whole.merge(&part.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        Ok(whole)
    }

    /// Reads the rows twice: column by column for the bins, so that one column is in memory at a time, and whole for the counts.
    fn made(
        schema: &SchemaRef,
        open: impl Fn(Option<usize>) -> Result<Batches, ReferenceError>,
        options: &ReferenceOptions<'_>,
    ) -> Result<Self, ReferenceError> {
        let mut bins = BTreeMap::new();
        for (place, field) in schema.fields().iter().enumerate() {
            let categorical = options.categorical.contains(field.name());
            let column = match kind(field.data_type(), categorical, None) {
                Kind::Numeric { .. } => {
                    numeric(open(Some(place))?, options.bins).map_err(|error| error.of(field.name()))?
                }
                Kind::Categorical(_) => frequent(open(Some(place))?)?,
                Kind::Time | Kind::Presence => continue,
            };
            bins.insert(field.name().clone(), column);
        }
        let source = "rows".to_owned();
        let mut reference = Self { source, rule: options.bins, bins, pane: EdgePane::default() };
        let watching = Watching {
            categorical: options.categorical,
            segments: options.segments,
            most_segments: options.most_segments,
            reference: Some(&reference),
            ..Watching::default()
        };
        let layout = Layout::new("reference", schema, &watching);
        let layout = layout.map_err(|problems| ReferenceError::Columns { problems })?;
        reference.pane = counted(&Arc::new(layout), open(None)?)?;
        Ok(reference)
    }

    /// Of what was counted of an edge, in bins that its counts by magnitude suggest. Those of equal parts lie on borders of what is
    /// counted by magnitude, so that panes which were counted without this reference have exact counts in them.
    pub fn of_pane(source: &str, pane: EdgePane, rule: BinRule) -> Self {
        let column = |(name, sketch): (&String, &Sketch)| {
            let column = match sketch {
                Sketch::Numbers(numbers) => {
                    ReferenceColumn::Numeric { edges: by_magnitude::edges(numbers, rule) }
                }
                Sketch::Labels(labels) => ReferenceColumn::of(labels),
                Sketch::Presence(_) | Sketch::Times(_) => return None,
            };
            Some((name.clone(), column))
        };
        let bins = pane.columns.iter().filter_map(column).collect();
        Self { source: source.to_owned(), rule, bins, pane }
    }

    /// How it differs from one that is made as `options` say.
    fn differences(&self, options: &ReferenceOptions<'_>) -> Vec<String> {
        let mut problems = Vec::new();
        if self.rule != options.bins {
            problems.push(format!("has {}, and {} are asked for", self.rule, options.bins));
        }
        for column in options.categorical {
            if !matches!(self.column(column), Some(ReferenceColumn::Categorical { .. })) {
                problems.push(format!("has no categories of column `{column}`"));
            }
        }
        for column in options.segments {
            if !self.pane.segments.contains_key(column) {
                problems.push(format!("has no segments by column `{column}`"));
            }
        }
        problems
    }

    /// How many values of a column are of categories that the reference does not have. None where that cannot be known: the column has no
    /// categories, or had more of them than are kept, so that one outside may have been there.
    pub fn unseen(&self, column: &str, live: &Sketch) -> Option<u64> {
        let (bins, before) = self.column(column).zip(self.pane.columns.get(column))?;
        match (bins, before, live) {
            (ReferenceColumn::Categorical { known }, Sketch::Labels(before), Sketch::Labels(live)) => {
                // A category that is not told of would be taken for one that the reference lacks.
                let told = known.iter().all(|name| live.tells(name));
                (before.beyond(known) == 0 && told).then(|| live.beyond(known))
            }
            _ => None,
        }
    }

    /// How a column is counted.
    pub fn column(&self, name: &str) -> Option<&ReferenceColumn> {
        self.bins.get(name)
    }

    /// Its rows.
    pub fn rows(&self) -> u64 {
        self.pane.rows
    }

    /// The statistics as a file that travels with a model: `reference: statistics.json`.
    ///
    /// # Errors
    /// None that its own types allow.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(&Statistics { millstream_statistics: VERSION, reference: self.clone() })
    }

    fn read_json(file: &Path) -> Result<Self, ReferenceError> {
        let text = std::fs::read_to_string(file)
            .map_err(|source| ReferenceError::Unreadable { file: file.to_path_buf(), source })?;
        let malformed = |source: Box<dyn std::error::Error + Send + Sync>| ReferenceError::Malformed {
            file: file.to_path_buf(),
            wanted: "statistics file",
            source,
        };
        let read: Statistics = serde_json::from_str(&text).map_err(|source| malformed(source.into()))?;
        if read.millstream_statistics != VERSION {
            return Err(malformed(format!("it is of version {}", read.millstream_statistics).into()));
        }
        let rising = |column: &ReferenceColumn| match column {
            ReferenceColumn::Numeric { edges } => edges.windows(2).all(|pair| pair[0] <= pair[1]),
            ReferenceColumn::Categorical { .. } => true,
        };
        if !read.reference.bins.values().all(rising) {
            return Err(malformed("the edges of its bins do not rise".into()));
        }
        Ok(read.reference)
    }
}

/// What rows of one layout count.
fn counted(
    layout: &Arc<Layout>,
    batches: impl Iterator<Item = Result<RecordBatch, ArrowError>>,
) -> Result<EdgePane, ReferenceError> {
    let mut counting = Counting::new(layout);
    for batch in batches {
        counting.add(&batch?);
    }
    Ok(counting.take().map(|(_, pane)| pane).unwrap_or_default())
}

/// A Parquet file, read in parts.
#[derive(Clone, Copy)]
struct Parquet<'p> {
    file: &'p Path,
}

impl Parquet<'_> {
    fn open(self) -> Result<ParquetRecordBatchReaderBuilder<File>, ReferenceError> {
        let opened = File::open(self.file);
        let opened =
            opened.map_err(|source| ReferenceError::Unreadable { file: self.file.to_path_buf(), source })?;
        ParquetRecordBatchReaderBuilder::try_new(opened).map_err(|source| self.malformed(source))
    }

    /// One column or all, of some row groups or all.
    fn batches(self, column: Option<usize>, groups: Option<Vec<usize>>) -> Result<Batches, ReferenceError> {
        let mut builder = self.open()?.with_batch_size(BATCH_ROWS);
        if let Some(column) = column {
            let mask = ProjectionMask::roots(builder.parquet_schema(), [column]);
            builder = builder.with_projection(mask);
        }
        if let Some(groups) = groups {
            builder = builder.with_row_groups(groups);
        }
        Ok(Box::new(builder.build().map_err(|source| self.malformed(source))?))
    }

    fn malformed(self, source: ParquetError) -> ReferenceError {
        ReferenceError::Malformed {
            file: self.file.to_path_buf(),
            wanted: "Parquet file",
            source: source.into(),
        }
    }
}

/// The version of the form that statistics are written in.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Statistics {
    millstream_statistics: u32,
    reference: Reference,
}

impl ReferenceColumn {
    fn of(labels: &Labels) -> Self {
        let counts = labels.counts();
        let known = counts.into_iter().filter(|(_, count)| *count > 0).take(KEPT);
        Self::Categorical { known: known.map(|(name, _)| name.to_owned()).collect() }
    }

    /// The most frequent categories.
    pub(crate) fn frequent(&self, most: usize) -> &[String] {
        match self {
            Self::Categorical { known } => &known[..known.len().min(most)],
            Self::Numeric { .. } => &[],
        }
    }
}

/// An error of a column that does not know its name.
enum Nameless {
    Bins(DriftError),
    Other(ReferenceError),
}

impl Nameless {
    fn of(self, column: &str) -> ReferenceError {
        match self {
            Self::Bins(source) => ReferenceError::Bins { column: column.to_owned(), source },
            Self::Other(error) => error,
        }
    }
}

/// The edges that the finite values of a column suggest.
fn numeric(batches: Batches, rule: BinRule) -> Result<ReferenceColumn, Nameless> {
    let mut numbers: Vec<f64> = Vec::new();
    for batch in batches {
        let add = |array: &ArrayRef| -> Result<(), ArrowError> {
            let array = cast(array, &DataType::Float64)?;
            numbers.extend(
                array.as_primitive::<Float64Type>().iter().flatten().filter(|value| value.is_finite()),
            );
            Ok(())
        };
        let added = batch.and_then(|batch| batch.columns().iter().try_for_each(add));
        added.map_err(|error| Nameless::Other(error.into()))?;
    }
    if numbers.is_empty() {
        return Ok(ReferenceColumn::Numeric { edges: Vec::new() });
    }
    let edges = match rule {
        BinRule::Quantiles(bins) => Bins::quantiles(&numbers, bins).map(|bins| bins.edges().to_vec()),
        BinRule::Mlrun => Bins::equal_width(&numbers, 20).map(|bins| open_ended(&bins)),
        BinRule::Doane => Bins::doane(&numbers).map(|bins| open_ended(&bins)),
    };
    Ok(ReferenceColumn::Numeric { edges: edges.map_err(Nameless::Bins)? })
}

/// Closed bins hold their greatest edge: behind it begins what lies beyond.
fn open_ended(bins: &Bins) -> Vec<f64> {
    let mut edges = bins.edges().to_vec();
    if let Some(last) = edges.last_mut() {
        *last = last.next_up();
    }
    edges
}

/// The most frequent categories of a column.
fn frequent(batches: Batches) -> Result<ReferenceColumn, ReferenceError> {
    let mut counts: std::collections::HashMap<String, u64> = std::collections::HashMap::new();
    for batch in batches {
        for array in batch?.columns() {
            values::labels(array, &mut |_, label| {
                let Some(label) = label else { return };
                if let Some(count) = counts.get_mut(label) {
                    *count += 1;
                } else if counts.len() < MOST_COUNTED {
                    counts.insert(label.to_owned(), 1);
                }
            });
        }
    }
    let mut counts: Vec<(String, u64)> = counts.into_iter().collect();
    counts.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let known = counts.into_iter().take(KEPT).map(|(name, _)| name);
    Ok(ReferenceColumn::Categorical { known: known.collect() })
}

/// Categories that are counted to find the most frequent ones; those that come later are not among them.
const MOST_COUNTED: usize = 1 << 20;

fn read_csv(file: &Path) -> Result<Vec<RecordBatch>, ReferenceError> {
    let unreadable = |source| ReferenceError::Unreadable { file: file.to_path_buf(), source };
    let malformed = |source: ArrowError| ReferenceError::Malformed {
        file: file.to_path_buf(),
        wanted: "CSV file",
        source: source.into(),
    };
    let length = std::fs::metadata(file).map_err(unreadable)?.len();
    if length > MOST_CSV_BYTES {
        return Err(ReferenceError::TooLarge { file: file.to_path_buf() });
    }
    let format = arrow::csv::reader::Format::default().with_header(true);
    let opened = || File::open(file).map_err(unreadable);
    let (schema, _) = format.infer_schema(opened()?, None).map_err(malformed)?;
    let reader =
        arrow::csv::ReaderBuilder::new(Arc::new(schema)).with_format(format).with_batch_size(BATCH_ROWS);
    reader.build(opened()?).map_err(malformed)?.collect::<Result<_, _>>().map_err(malformed)
}

#[cfg(test)]
mod tests {
    use millstream_graph::rows;

    use super::*;

    fn sample() -> RecordBatch {
        let amounts: Vec<f64> = (0..1000).map(f64::from).collect();
        let countries: Vec<&str> = (0..1000).map(|i| if i % 4 == 0 { "fr" } else { "de" }).collect();
        let classes: Vec<i64> = (0..1000).map(|i| i % 3).collect();
        rows! { amount: amounts, country: countries, class: classes }
    }

    #[test]
    fn a_reference_is_the_same_from_memory_and_from_every_kind_of_file() {
        let folder = tempfile::tempdir().unwrap();
        let batch = sample();
        let path = |name: &str| folder.path().join(name);
        let mut writer = parquet::arrow::ArrowWriter::try_new(
            File::create(path("train.parquet")).unwrap(),
            batch.schema(),
            None,
        )
        .unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        arrow::csv::Writer::new(File::create(path("train.csv")).unwrap()).write(&batch).unwrap();
        let (categorical, segments) = (["class".to_owned()], ["country".to_owned()]);
        let options = ReferenceOptions {
            categorical: &categorical,
            segments: &segments,
            most_segments: 9,
            ..Default::default()
        };
        let memory = Reference::of(&[batch.slice(0, 300), batch.slice(300, 700)], &options).unwrap();
        std::fs::write(path("train.json"), memory.to_json().unwrap()).unwrap();
        for name in ["train.parquet", "train.csv", "train.json"] {
            let read = Reference::read(&path(name), &options).unwrap();
            assert_eq!((&read.bins, &read.pane), (&memory.bins, &memory.pane), "{name}");
        }
        let Some(ReferenceColumn::Numeric { edges }) = memory.column("amount") else { panic!("numeric") };
        assert_eq!(edges[..2], [99.9, 199.8]);
        let Some(ReferenceColumn::Categorical { known }) = memory.column("class") else {
            panic!("categorical")
        };
        assert_eq!(known.len(), 3);
        let Sketch::Numbers(amounts) = &memory.pane.columns["amount"] else { panic!("numbers") };
        assert_eq!(amounts.counts_in(edges), [100; 10]);
        assert_eq!(memory.pane.segments["country"].get("fr").unwrap()["amount"].rows(), 250);
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let cases = [
            ("gone.parquet", None, "gone.parquet: cannot be read"),
            ("bad.parquet", Some("no"), "bad.parquet: is no Parquet file"),
            ("bad.json", Some("{}"), "bad.json: is no statistics file"),
            ("train.xlsx", Some(""), "train.xlsx: a reference is a .parquet, .csv or .json file"),
        ];
        for (name, content, wanted) in cases {
            let file = folder.path().join(name);
            content.into_iter().for_each(|content| std::fs::write(&file, content).unwrap());
            let error = Reference::read(&file, &ReferenceOptions::default()).unwrap_err().to_string();
            assert!(error.ends_with(wanted), "{error}");
        }
    }

    #[test]
    fn statistics_that_were_made_in_another_way_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("train.json");
        let (class, country) = (["class".to_owned()], ["country".to_owned()]);
        let options =
            |bins, categorical, segments| ReferenceOptions { bins, categorical, segments, most_segments: 9 };
        let made = Reference::of(&[sample()], &options(BinRule::Mlrun, &class, &country)).unwrap();
        std::fs::write(&file, made.to_json().unwrap()).unwrap();
        let (amount, gone) = (["amount".to_owned()], ["gone".to_owned()]);
        type Names<'n> = &'n [String];
        let cases: [(BinRule, Names<'_>, Names<'_>, &[&str]); 6] = [
            (BinRule::Mlrun, &class, &country, &[]),
            (BinRule::Mlrun, &country, &[], &[]),
            (BinRule::default(), &[], &[], &["has MLRun's bins, and 10 bins of equal parts are asked for"]),
            (
                BinRule::Doane,
                &[],
                &class,
                &["NannyML's bins are asked for", "has no segments by column `class`"],
            ),
            (BinRule::Mlrun, &amount, &[], &["has no categories of column `amount`"]),
            (
                BinRule::Mlrun,
                &gone,
                &gone,
                &["has no categories of column `gone`", "has no segments by column `gone`"],
            ),
        ];
        for (bins, categorical, segments, wanted) in cases {
            match Reference::read(&file, &options(bins, categorical, segments)) {
                Ok(_) => assert!(wanted.is_empty(), "{wanted:?}"),
                Err(error) => {
                    let text = error.to_string();
                    assert!(
                        !wanted.is_empty() && wanted.iter().all(|wanted| text.contains(wanted)),
                        "{text}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_column_of_nothing_or_of_one_value_has_bins_all_the_same() {
        let batch = rows! { none: [None::<f64>, None], same: [7.0, 7.0], nan: [f64::NAN, f64::NAN] };
        for rule in [BinRule::Quantiles(10), BinRule::Mlrun, BinRule::Doane] {
            let options = ReferenceOptions { bins: rule, ..ReferenceOptions::default() };
            let reference = Reference::of(std::slice::from_ref(&batch), &options).unwrap();
            assert_eq!(reference.rows(), 2);
        }
    }
}
