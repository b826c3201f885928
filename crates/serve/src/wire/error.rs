//! Why a body was refused.

/// Why a body was refused: a code to decide on, a sentence to read, and the place.
///
/// ```
/// use millstream_serve::wire::{DecodeCode, DecodeError};
/// let error = DecodeError::new(DecodeCode::WrongType, "must be a number, but is a string");
/// assert_eq!(error.code.name(), "wrong_type");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeError {
    /// What is wrong, for programs.
    pub code: DecodeCode,
    /// What is wrong, for people, without the place.
    pub message: String,
    /// The field at fault within its row, such as `items[3].price`.
    pub field: Option<String>,
    /// The row at fault, counted from zero; none when the body is one object or no row is at fault.
    pub row: Option<usize>,
}

impl DecodeError {
    /// An error about the body as a whole.
    pub fn new(code: DecodeCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), field: None, row: None }
    }

    /// The same error, about a field.
    #[must_use]
    pub fn at_field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }
}

impl std::fmt::Display for DecodeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(row) = self.row {
            write!(f, "row {row}: ")?;
        }
        if let Some(field) = &self.field {
            write!(f, "field `{field}`: ")?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for DecodeError {}

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// What is wrong with a body. Names are stable: clients decide on them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum DecodeCode {
            $($(#[$doc])* $variant,)*
        }

        impl DecodeCode {
            /// The code's name on the wire.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

codes! {
    /// A value is of another type than its field.
    WrongType = "wrong_type",
    /// A field that must be there is not.
    MissingField = "missing_field",
    /// A field that the schema does not know.
    UnknownField = "unknown_field",
    /// The same field twice in one object.
    DuplicateField = "duplicate_field",
    /// A value that its field's type cannot hold.
    OutOfRange = "out_of_range",
    /// Text that is not UTF-8, or an escape that stands for half a character.
    BadUtf8 = "bad_utf8",
    /// The body ends in the middle.
    Truncated = "truncated",
    /// Values nested deeper than allowed.
    TooDeep = "too_deep",
    /// More bytes than allowed.
    TooLarge = "too_large",
    /// More rows than allowed.
    TooManyRows = "too_many_rows",
    /// It arrives too slowly.
    TooSlow = "too_slow",
    /// It is compressed in a way that is not unpacked.
    UnknownEncoding = "unknown_encoding",
    /// Not JSON, or not an Arrow IPC stream.
    Malformed = "malformed",
    /// Something follows the end of the body's value.
    Trailing = "trailing",
    /// Not the caller's fault.
    Internal = "internal",
}

impl std::fmt::Display for DecodeCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
