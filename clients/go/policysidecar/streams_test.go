package policysidecar_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "policies.hoc/gen/hoc/cus/policies/v1"
	"policies.hoc/policysidecar"
)

// rowsOf are the ids of new rows, newest first; their texts are too long for all of them to be on their way at once.
func rowsOf(t *testing.T, tenant string, count int) []string {
	t.Helper()
	ids := make([]string, count)
	operations := make([]*pb.Operation, count)
	for i := range ids {
		ids[i] = policysidecar.NewUUID()
		operations[i] = &pb.Operation{Request: &pb.Operation_InsertViolation{InsertViolation: violation(tenant, ids[i], -2*i)}}
	}
	for some := range slices.Chunk(operations, 600) {
		_, err := client.SingleUse().Execute(ctx, &pb.ExecuteRequest{Operations: some})
		must(t, err)
	}
	return ids
}

// violation is one that was detected so many seconds after a moment.
func violation(tenant, id string, seconds int) *pb.InsertViolationRequest {
	return &pb.InsertViolationRequest{
		ViolationId: id, ViolationType: new("x"), Severity: new(0.5), Description: new(strings.Repeat("long ", 800)), TenantId: &tenant,
		Evidence: structpb.NewStringValue("e"), RoutedToGovernor: new(false),
		DetectedAt: timestamppb.New(time.Unix(1_700_000_000+int64(seconds), 0)),
	}
}

func TestAStreamThatIsCutGoesOnWithNothingMissingOrTwice(t *testing.T) {
	for _, cut := range []int{0, 510} {
		t.Run(fmt.Sprint(cut), func(t *testing.T) {
			between, tenant := newProxy(t), policysidecar.NewUUID()
			// No more may have arrived than the rows up to the next token.
			narrow := []grpc.DialOption{grpc.WithInitialWindowSize(1 << 16), grpc.WithInitialConnWindowSize(1 << 16)}
			through := connect(t, between.address, policysidecar.Options{Dial: narrow})
			expected := rowsOf(t, tenant, cut+560)
			var got []string
			// A row between those that have come must not cost one of those that follow.
			added := policysidecar.NewUUID()
			for row, err := range policysidecar.Rows(ctx, through.PolicyEngine().StreamViolations, &pb.StreamViolationsRequest{TenantId: &tenant}) {
				must(t, err)
				if got = append(got, row.Violation.Id); len(got) == cut+1 {
					_, err := client.SingleUse().PolicyEngine().InsertViolation(ctx, violation(tenant, added, -2*(cut-5)-1))
					must(t, err)
				}
				if len(got) == cut+1 || row.Violation.Id == added {
					between.cut()
				}
			}
			if !slices.Contains(got, added) {
				t.Error("the row between did not come")
			}
			unique := slices.Clone(got)
			slices.Sort(unique)
			if unique = slices.Compact(unique); len(unique) != len(got) {
				t.Errorf("%d rows, %d of them different", len(got), len(unique))
			}
			own := slices.DeleteFunc(got, func(id string) bool { return !slices.Contains(expected, id) })
			if !slices.Equal(own, expected) {
				t.Errorf("%d rows, expected %d in their order", len(own), len(expected))
			}
			if between.accepted() < 2 {
				t.Error("it was not cut")
			}
		})
	}
}

func TestAStreamThatIsCutEndsWhereItShallOrIsInATransaction(t *testing.T) {
	between, tenant := newProxy(t), policysidecar.NewUUID()
	rowsOf(t, tenant, 500)
	read := func(services policysidecar.Services) error {
		count := 0
		for _, err := range policysidecar.Rows(ctx, services.PolicyEngine().StreamViolations, &pb.StreamViolationsRequest{TenantId: &tenant}) {
			if err != nil {
				return err
			}
			if count++; count == 1 {
				between.cut()
			}
		}
		return nil
	}
	ends := connect(t, between.address, policysidecar.Options{CutStreamsEnd: true})
	wants(t, read(ends.Services), policysidecar.ErrUnavailable)
	through := connect(t, between.address, policysidecar.Options{})
	err := through.InTransaction(ctx, policysidecar.TxOptions{}, func(_ context.Context, tx *policysidecar.Tx) error {
		return read(tx.Services)
	})
	if !errors.Is(err, policysidecar.ErrUnavailable) && !errors.Is(err, policysidecar.ErrTransactionEnded) {
		t.Errorf("%v", err)
	}
}

func TestAListIsReadByPages(t *testing.T) {
	tenant := policysidecar.NewUUID()
	expected := rowsOf(t, tenant, 25)
	var sizes []int
	var got []string
	request := &pb.FetchViolationsRequest{TenantId: &tenant, Limit: new(int32(10))}
	for page, err := range policysidecar.Pages(ctx, client.PolicyEngine().FetchViolations, request) {
		must(t, err)
		sizes = append(sizes, len(page.Violations))
		for _, row := range page.Violations {
			got = append(got, row.Id)
		}
	}
	if !slices.Equal(got, expected) || !slices.Equal(sizes, []int{10, 10, 5}) || request.PageToken != nil {
		t.Errorf("pages of %v, %v", sizes, request.PageToken)
	}
	var last error
	for _, err := range policysidecar.Pages(ctx, client.PolicyEngine().FetchViolations, &pb.FetchViolationsRequest{PageToken: new("no token")}) {
		last = err
	}
	wants(t, last, policysidecar.ErrInvalidRequest)
	first := 0
	for page, err := range policysidecar.Pages(ctx, client.PolicyEngine().FetchViolations, request) {
		must(t, err)
		first = len(page.Violations)
		break
	}
	if first != 10 {
		t.Errorf("%d rows", first)
	}
}
