/** Generators under a span: it starts at the first step, and each step runs with it as the active one. */

/** What a generator's span needs. */
export interface Steps {
  /** Takes one step under the span. */
  run<T>(work: () => T): T;
  /** Notes what the generator yielded. */
  yielded(item: unknown): void;
  /** Records an error. */
  fail(error: unknown): void;
  /** Ends the span. */
  end(): void;
}

/** A generator that does what `inner` does, under the span that `open` opens at the first step. */
export function* stepping(inner: Generator, open: () => Steps): Generator {
  const steps = open();
  let step = () => inner.next();
  let done = false;
  try {
    for (;;) {
      const result = steps.run(step);
      if (result.done) {
        done = true;
        return result.value;
      }
      steps.yielded(result.value);
      try {
        const sent: unknown = yield result.value;
        step = () => inner.next(sent);
      } catch (thrown) {
        step = () => inner.throw(thrown);
      }
    }
  } catch (error) {
    done = true;
    steps.fail(error);
    throw error;
  } finally {
    // Whoever consumed it has stopped early: its own clean-up runs under the span too. That is no error.
    try {
      if (!done) steps.run(() => inner.return(undefined));
    } finally {
      steps.end();
    }
  }
}

/** As `stepping`, for asynchronous generators. */
export async function* steppingAsync(inner: AsyncGenerator, open: () => Steps): AsyncGenerator {
  const steps = open();
  let step = () => inner.next();
  let done = false;
  try {
    for (;;) {
      const result = await steps.run(step);
      if (result.done) {
        done = true;
        return result.value;
      }
      steps.yielded(result.value);
      try {
        const sent: unknown = yield result.value;
        step = () => inner.next(sent);
      } catch (thrown) {
        step = () => inner.throw(thrown);
      }
    }
  } catch (error) {
    done = true;
    steps.fail(error);
    throw error;
  } finally {
    try {
      if (!done) await steps.run(() => inner.return(undefined));
    } finally {
      steps.end();
    }
  }
}
