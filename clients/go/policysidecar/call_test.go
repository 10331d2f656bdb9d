package policysidecar_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/structpb"

	pb "policies.hoc/gen/hoc/cus/policies/v1"
	"policies.hoc/policysidecar"
)

func mask(paths ...string) *fieldmaskpb.FieldMask { return &fieldmaskpb.FieldMask{Paths: paths} }

func TestValuesComeBackAsTheyWere(t *testing.T) {
	id, document := policysidecar.NewUUID(), map[string]any{"list": []any{1.5, nil, "ü"}, "deep": map[string]any{"yes": true}}
	sent := evaluation(id, document)
	_, err := client.SingleUse().PolicyEngine().InsertEvaluation(ctx, sent)
	must(t, err)
	answer, err := client.PolicyEngine().FetchEvaluationById(ctx, &pb.FetchEvaluationByIdRequest{EvaluationId: id})
	must(t, err)
	got := answer.Evaluation
	if !reflect.DeepEqual(got.RequestContext.AsInterface(), any(document)) {
		t.Errorf("document %v", got.RequestContext)
	}
	if !got.EvaluatedAt.AsTime().Equal(sent.EvaluatedAt.AsTime()) || got.AgentId != nil || got.PoliciesChecked != 3 {
		t.Errorf("%v", got)
	}
}

func TestDocumentsAsTextAreExact(t *testing.T) {
	id, text := policysidecar.NewUUID(), `{"large": 9007199254740993, "whole": 1.0}`
	sent := evaluation(id, nil)
	sent.RequestContext = structpb.NewStringValue(text)
	exact := connect(t, shared.Address, policysidecar.Options{Documents: policysidecar.DocumentsAsText})
	_, err := exact.SingleUse().PolicyEngine().InsertEvaluation(ctx, sent)
	must(t, err)
	request := &pb.FetchEvaluationByIdRequest{EvaluationId: id}
	answer, err := client.PolicyEngine().FetchEvaluationById(policysidecar.WithDocuments(ctx, policysidecar.DocumentsAsText), request)
	must(t, err)
	if got := answer.Evaluation.RequestContext.GetStringValue(); got != text {
		t.Errorf("%s", got)
	}
	answer, err = exact.PolicyEngine().FetchEvaluationById(policysidecar.WithDocuments(ctx, policysidecar.DocumentsAsValues), request)
	must(t, err)
	if answer.Evaluation.RequestContext.GetStructValue() == nil {
		t.Errorf("%v", answer.Evaluation.RequestContext)
	}
	_, err = client.PolicyEngine().FetchEvaluationById(policysidecar.WithDocuments(ctx, "else"), request)
	wants(t, err, policysidecar.ErrInvalidRequest)
}

func TestRefusedFieldsAreNamed(t *testing.T) {
	_, err := client.SingleUse().PolicyEngine().InsertEvaluation(ctx, &pb.InsertEvaluationRequest{EvaluationId: "no uuid"})
	told := wants(t, err, policysidecar.ErrInvalidRequest)
	fields := map[string]bool{}
	for _, violation := range told.Violations {
		fields[violation.Field] = true
	}
	if !fields["evaluation_id"] || !fields["decision"] || told.Retriable() || told.Reason != "INVALID_REQUEST" {
		t.Errorf("%v: %v", told, fields)
	}
	if status.Code(err) != codes.InvalidArgument {
		t.Error("not grpc's code")
	}
}

func TestAConstraintIsNamed(t *testing.T) {
	id := policysidecar.NewUUID()
	single := client.SingleUse()
	_, err := single.PolicyEngine().InsertPolicyVersion(ctx, version(id))
	must(t, err)
	_, err = single.PolicyEngine().InsertPolicyVersion(ctx, version(id))
	told := wants(t, err, policysidecar.ErrConstraint)
	if told.Reason != "UNIQUE_VIOLATION" || told.Metadata["constraint"] == "" {
		t.Errorf("%v %v", told, told.Metadata)
	}
}

func TestARowCountThatDiffersIsTold(t *testing.T) {
	_, err := client.SingleUse().Execute(ctx, &pb.ExecuteRequest{Operations: []*pb.Operation{{
		Request:      &pb.Operation_ResetRiskCeiling{ResetRiskCeiling: &pb.ResetRiskCeilingRequest{CeilingId: policysidecar.NewUUID()}},
		ExpectedRows: new(int64(1)),
	}}})
	told := wants(t, err, policysidecar.ErrPrecondition)
	if len(told.Preconditions) != 1 || told.Metadata["found"] != "0" {
		t.Errorf("%v %v", told.Preconditions, told.Metadata)
	}
}

func TestLeavingALoopCancelsItsStream(t *testing.T) {
	tenant := policysidecar.NewUUID()
	rowsOf(t, tenant, 1000)
	underWay := func() int {
		list, err := client.Transactions().List(ctx, &pb.TransactionServiceListRequest{})
		must(t, err)
		streams := 0
		for _, open := range list.Transactions {
			if strings.HasPrefix(open.Label, "stream ") {
				streams++
			}
		}
		return streams
	}
	request := &pb.StreamViolationsRequest{TenantId: &tenant}
	seen := 0
	for row, err := range policysidecar.Rows(ctx, client.PolicyEngine().StreamViolations, request) {
		must(t, err)
		if row.Violation.Id == "" {
			t.Error("an empty row")
		}
		seen++
		eventually(t, "a stream under way", func() bool { return underWay() == 1 })
		break
	}
	if seen != 1 {
		t.Errorf("%d rows", seen)
	}
	eventually(t, "no stream under way", func() bool { return underWay() == 0 })
	all := 0
	for _, err := range policysidecar.Rows(ctx, client.PolicyEngine().StreamViolations, request) {
		must(t, err)
		all++
	}
	if all != 1000 {
		t.Errorf("%d rows", all)
	}
}

func TestAStreamsErrorIsItsLast(t *testing.T) {
	var last error
	for _, err := range policysidecar.Rows(ctx, client.PolicyEngine().StreamViolations, &pb.StreamViolationsRequest{SeverityMin: new(nan)}) {
		last = err
	}
	wants(t, last, policysidecar.ErrInvalidRequest)
}

func TestACallHasADeadline(t *testing.T) {
	nobody := socket(t)
	_, err := connect(t, nobody, policysidecar.Options{Timeout: 200 * time.Millisecond}).PolicyEngine().
		FetchRiskCeilings(ctx, &pb.FetchRiskCeilingsRequest{})
	wants(t, err, context.DeadlineExceeded)
	var last error
	for _, err := range policysidecar.Rows(ctx, connect(t, nobody, policysidecar.Options{Timeout: 200 * time.Millisecond}).
		PolicyEngine().StreamRiskCeilings, &pb.StreamRiskCeilingsRequest{}) {
		last = err
	}
	wants(t, last, context.DeadlineExceeded)
	wants(t, connect(t, nobody, policysidecar.Options{Timeout: 200 * time.Millisecond}).
		InTransaction(ctx, policysidecar.TxOptions{}, nil), context.DeadlineExceeded)
	_, err = connect(t, nobody, policysidecar.Options{FailFast: true}).PolicyEngine().
		FetchRiskCeilings(ctx, &pb.FetchRiskCeilingsRequest{})
	wants(t, err, policysidecar.ErrUnavailable)
	ended, cancel := context.WithCancel(ctx)
	cancel()
	_, err = client.PolicyEngine().FetchRiskCeilings(ended, &pb.FetchRiskCeilingsRequest{})
	wants(t, err, context.Canceled)
}

func TestATokenIsShownOverASocket(t *testing.T) {
	address, file := socket(t), filepath.Join(t.TempDir(), "tokens")
	must(t, os.WriteFile(file, fmt.Appendf(nil, "engine: %x\n", sha256.Sum256([]byte("secret"))), 0o600))
	serve(t, "SIDECAR_GRPC_LISTEN="+address, "SIDECAR_TOKENS_FILE="+file)
	known := connect(t, address, policysidecar.Options{Token: "secret"})
	must(t, known.InTransaction(ctx, policysidecar.TxOptions{}, func(ctx context.Context, tx *policysidecar.Tx) error {
		got, err := known.Transactions().Get(ctx, &pb.TransactionServiceGetRequest{TransactionId: tx.ID()})
		if err == nil && got.Transaction.Caller != "engine" {
			t.Errorf("caller %s", got.Transaction.Caller)
		}
		return err
	}))
	_, err := connect(t, address, policysidecar.Options{}).PolicyEngine().FetchRiskCeilings(ctx, &pb.FetchRiskCeilingsRequest{})
	wants(t, err, policysidecar.ErrUnauthenticated)
}

func TestConsistencyIsAskedAndTrailersAreRead(t *testing.T) {
	var trailer metadata.MD
	_, err := client.PolicyEngine().FetchRiskCeilings(policysidecar.WithConsistency(ctx, policysidecar.Eventual),
		&pb.FetchRiskCeilingsRequest{}, grpc.Trailer(&trailer))
	must(t, err)
	if policysidecar.InexactValues(trailer) != nil || policysidecar.ConsistencyToken(trailer) != "" {
		t.Errorf("%v", trailer)
	}
	_, err = client.PolicyEngine().FetchRiskCeilings(policysidecar.WithConsistency(ctx, " not a token "), &pb.FetchRiskCeilingsRequest{})
	wants(t, err, policysidecar.ErrInvalidRequest)
	trailer = metadata.Pairs("inexact-values", "a.b.c[1]=latest, a.b.d[2]=nearest", "consistency-token", "t")
	if got := policysidecar.InexactValues(trailer); len(got) != 2 || policysidecar.ConsistencyToken(trailer) != "t" {
		t.Errorf("%v", got)
	}
}

func TestAnUnknownReasonHasTheKindOfItsCode(t *testing.T) {
	newer := &policysidecar.Error{Code: codes.Aborted, Reason: "OF_A_NEWER_SIDECAR"}
	if !errors.Is(newer, policysidecar.ErrConflict) || !newer.Retriable() {
		t.Error("another kind")
	}
}
