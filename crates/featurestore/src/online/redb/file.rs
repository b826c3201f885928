//! The tables of a set in its file, and what a write does to them.

use std::collections::HashSet;

use redb::{
    Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, Table, TableDefinition,
    WriteTransaction,
};

use crate::online::{
    Outcome, Written,
    incoming::Incoming,
    row::{Head, Row},
};

pub(super) const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("rows");
pub(super) const MARKS: TableDefinition<'_, (&str, u32), u64> = TableDefinition::new("marks");
/// Ids, and their place in [`ORDER`], the oldest first.
const IDS: TableDefinition<'_, &[u8], u64> = TableDefinition::new("ids");
const ORDER: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("order");
const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");
const TEXTS: TableDefinition<'_, &str, &str> = TableDefinition::new("texts");

const SEQUENCE: &str = "sequence";
const LAST_ID: &str = "last id";
/// There while the file may hold bytes of rows that were removed.
const REMOVED: &str = "removed";
const DEFINITION: &str = "definition";

/// The tables of a file while they are written.
pub(super) struct Tables<'t> {
    rows: Table<'t, &'static [u8], &'static [u8]>,
    marks: Table<'t, (&'static str, u32), u64>,
    ids: Table<'t, &'static [u8], u64>,
    order: Table<'t, u64, &'static [u8]>,
    numbers: Table<'t, &'static str, u64>,
    max_ids: u64,
}

impl<'t> Tables<'t> {
    pub(super) fn open(of: &'t WriteTransaction, max_ids: u64) -> Result<Self, redb::Error> {
        Ok(Self {
            rows: of.open_table(ROWS)?,
            marks: of.open_table(MARKS)?,
            ids: of.open_table(IDS)?,
            order: of.open_table(ORDER)?,
            numbers: of.open_table(NUMBERS)?,
            max_ids,
        })
    }

    /// Takes the rows of a write.
    pub(super) fn write(&mut self, mut incoming: Incoming) -> Result<Written, redb::Error> {
        let positions = incoming.positions.take();
        let mark = match &positions {
            Some(at) => self.marks.get((at.source.as_str(), at.partition))?.map(|mark| mark.value()),
            None => None,
        };
        let mut outcomes = Vec::with_capacity(incoming.len());
        for row in 0..incoming.len() {
            let offset = positions.as_ref().map(|at| at.offsets[row]);
            let outcome = match incoming.refused[row].take() {
                Some(problem) => Outcome::Refused(problem),
                None if offset.zip(mark).is_some_and(|(offset, mark)| offset <= mark) => Outcome::Repeated,
                None if self.knows(incoming.id(row))? => Outcome::Repeated,
                None => {
                    let last = self.number(SEQUENCE)?;
                    let sequence = incoming.sequence(row, last + 1);
                    self.numbers.insert(SEQUENCE, last.max(sequence))?;
                    incoming.number(row, sequence);
                    self.put(&incoming.row(row))?
                }
            };
            outcomes.push(outcome);
        }
        if let Some(at) = &positions
            && let Some(offset) = at.top().max(mark)
        {
            self.marks.insert((at.source.as_str(), at.partition), offset)?;
        }
        Ok(Written { rows: outcomes, broken: Vec::new() })
    }

    fn put(&mut self, row: &Row<'_>) -> Result<Outcome, redb::Error> {
        if let Some(known) = self.rows.get(row.key)?
            && known.value().len() >= row.fixed.len()
            && Head::read(known.value()).version() >= row.head().version()
        {
            return Ok(Outcome::Older);
        }
        self.rows.insert(row.key, row.blob().as_slice())?;
        Ok(Outcome::Taken)
    }

    /// Whether an id was remembered; it is from now on.
    fn knows(&mut self, id: Option<&str>) -> Result<bool, redb::Error> {
        let Some(id) = id.map(str::as_bytes) else { return Ok(false) };
        if self.ids.get(id)?.is_some() {
            return Ok(true);
        }
        let number = self.number(LAST_ID)? + 1;
        self.numbers.insert(LAST_ID, number)?;
        self.ids.insert(id, number)?;
        self.order.insert(number, id)?;
        while self.order.len()? > self.max_ids {
            let Some((_, oldest)) = self.order.pop_first()? else { break };
            self.ids.remove(oldest.value())?;
        }
        Ok(false)
    }

    fn number(&self, name: &str) -> Result<u64, redb::Error> {
        Ok(self.numbers.get(name)?.map_or(0, |number| number.value()))
    }

    /// Removes keys; how many had a row.
    pub(super) fn erase(&mut self, keys: &[Vec<u8>]) -> Result<u64, redb::Error> {
        let mut removed = 0;
        for key in keys {
            removed += u64::from(self.rows.remove(key.as_slice())?.is_some());
        }
        self.numbers.insert(REMOVED, 1)?;
        Ok(removed)
    }

    /// Removes rows, marks and ids; how many rows there were.
    pub(super) fn purge(&mut self) -> Result<u64, redb::Error> {
        let removed = self.rows.len()?;
        self.rows.retain(|_, _| false)?;
        self.marks.retain(|_, _| false)?;
        self.ids.retain(|_, _| false)?;
        self.order.retain(|_, _| false)?;
        self.numbers.insert(REMOVED, 1)?;
        Ok(removed)
    }
}

/// Makes the tables of a new file; what an old one says it was written for.
pub(super) fn define(file: &Database, definition: &str) -> Result<String, redb::Error> {
    let transaction = file.begin_write()?;
    let wrote = {
        Tables::open(&transaction, 0)?;
        let mut texts = transaction.open_table(TEXTS)?;
        let wrote = texts.get(DEFINITION)?.map(|text| text.value().to_owned());
        if wrote.is_none() {
            texts.insert(DEFINITION, definition)?;
        }
        wrote
    };
    transaction.commit()?;
    Ok(wrote.unwrap_or_else(|| definition.to_owned()))
}

/// Whether the file may hold bytes of rows that were removed.
pub(super) fn holds_removed(file: &Database) -> Result<bool, redb::Error> {
    Ok(file.begin_read()?.open_table(NUMBERS)?.get(REMOVED)?.is_some())
}

/// Copies everything to a new file, but for the mark of removed rows.
pub(super) fn copy(from: &Database, to: &Database, definition: &str) -> Result<(), redb::Error> {
    define(to, definition)?;
    let (read, write) = (from.begin_read()?, to.begin_write()?);
    {
        let mut tables = Tables::open(&write, 0)?;
        for row in read.open_table(ROWS)?.iter()? {
            let (key, row) = row?;
            tables.rows.insert(key.value(), row.value())?;
        }
        for mark in read.open_table(MARKS)?.iter()? {
            let (partition, offset) = mark?;
            tables.marks.insert(partition.value(), offset.value())?;
        }
        for id in read.open_table(ORDER)?.iter()? {
            let (number, id) = id?;
            tables.order.insert(number.value(), id.value())?;
            tables.ids.insert(id.value(), number.value())?;
        }
        let names: HashSet<&str> = [SEQUENCE, LAST_ID].into();
        for number in read.open_table(NUMBERS)?.iter()? {
            let (name, number) = number?;
            if names.contains(name.value()) {
                tables.numbers.insert(name.value(), number.value())?;
            }
        }
    }
    write.commit()?;
    Ok(())
}
