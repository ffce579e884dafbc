//! How much the maps still take, and what to say if that is too little.

/// What a Service needs and a map does not have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shortage {
    /// The map.
    pub map: &'static str,
    /// Rows that it needs beside those that it has; in `BACKENDS` one after the other.
    pub needs: usize,
    /// Rows that there are; `None` if they only are not together.
    pub fits: Option<usize>,
}

impl Shortage {
    pub(crate) fn check(map: &'static str, needs: usize, fits: usize) -> Result<usize, Self> {
        let fits_not = Self {
            map,
            needs,
            fits: Some(fits),
        };
        fits.checked_sub(needs).ok_or(fits_not)
    }

    /// What to tell the operator of a Service that is served already, or is not.
    pub fn sentence(self, is_served: bool) -> String {
        let Self { map, needs, fits } = self;
        let lacks = match fits {
            Some(fits) => format!("needs {needs} more rows in {map}, and {fits} fit"),
            None => format!("needs {needs} free slots in a run in {map}, and there is no such run"),
        };
        let state = if is_served {
            "its old state stays"
        } else {
            "it is not served"
        };
        format!("{lacks}: {state}; remove endpoints or Services that nobody uses")
    }
}

/// Rows that the maps still have room for, in the course of one plan.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// In `SERVICES`.
    pub rows: usize,
    /// In `ADDRESSES`.
    pub addresses: usize,
}
