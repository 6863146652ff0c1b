//! What filters keep for their knotes beyond what fits in one: values by number.

/// Values by a number that the knote has in `own`.
pub(crate) struct Kept<T> {
    values: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Default for Kept<T> {
    fn default() -> Kept<T> {
        Kept { values: Vec::new(), free: Vec::new() }
    }
}

impl<T> Kept<T> {
    pub(super) fn insert(&mut self, value: T) -> u32 {
        if let Some(number) = self.free.pop() {
            self.values[number as usize] = Some(value);
            return number;
        }
        self.values.push(Some(value));
        u32::try_from(self.values.len() - 1).expect("fewer than there are knotes")
    }

    pub(super) fn get(&mut self, number: u32) -> &mut T {
        self.values[number as usize].as_mut().expect("a knote's number is good until it is taken")
    }

    /// How many values there are.
    pub(super) fn len(&self) -> usize {
        self.values.len() - self.free.len()
    }

    /// Takes a value out; its number may serve another.
    pub(super) fn take(&mut self, number: u32) -> Option<T> {
        let value = self.values.get_mut(number as usize)?.take();
        if value.is_some() {
            self.free.push(number);
        }
        value
    }
}
