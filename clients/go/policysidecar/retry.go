package policysidecar

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

const (
	// callAttempts is how often a call outside transactions is tried.
	callAttempts = 5
	// firstDelay is waited where an error names no delay.
	firstDelay   = 50 * time.Millisecond
	longestDelay = 5 * time.Second
)

// delay is waited before another attempt: what the error asks for, more each time, never the same for two callers.
func delay(after time.Duration, attempt int) time.Duration {
	wait := max(after, min(max(after, firstDelay)<<min(attempt-1, 10), longestDelay))
	return time.Duration(float64(wait) * (1 + rand.Float64()))
}

// pause waits, or returns false: at once where the deadline comes sooner, or with the end of the context.
func pause(ctx context.Context, wait time.Duration) bool {
	if end, ok := ctx.Deadline(); ok && time.Until(end) <= wait {
		return false
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// retry tries it again while it fails with an Error that promises something of it, and there are attempts and time for that.
func retry(ctx context.Context, attempts int, promising func(*Error) bool, work func() error) error {
	for attempt := 1; ; attempt++ {
		err := work()
		var told *Error
		if !errors.As(err, &told) || !promising(told) || attempt >= attempts {
			return err
		}
		if !pause(ctx, delay(told.RetryAfter, attempt)) {
			return err
		}
	}
}
