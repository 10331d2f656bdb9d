// The sidecar's calls as a Go author would serve them: grpc-go, a pgx pool of ten connections, the statements the bench
// hands to every server.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "peer/build/hoc/cus/policies/v1"
)

var (
	point  = os.Getenv("SQL_POINT")
	list   = os.Getenv("SQL_LIST")
	write  = os.Getenv("SQL_WRITE")
	stream = os.Getenv("SQL_STREAM")
)

type server struct {
	pb.UnimplementedPolicyEngineServiceServer
	pool *pgxpool.Pool
}

func violation(row pgx.CollectableRow) (*pb.PolicyViolation, error) {
	var (
		found    pb.PolicyViolation
		id       pgtype.UUID
		evidence []byte
		detected time.Time
	)
	err := row.Scan(&id, &found.PolicyName, &found.ViolationType, &found.Severity, &found.Description, &evidence,
		&found.AgentId, &found.TenantId, &found.ActionAttempted, &found.RoutedToGovernor, &found.GovernorAction, &detected)
	if err != nil {
		return nil, err
	}
	found.Evidence = &structpb.Value{}
	if err := found.Evidence.UnmarshalJSON(evidence); err != nil {
		return nil, err
	}
	found.Id = id.String()
	found.DetectedAt = timestamppb.New(detected)
	return &found, nil
}

func internal(err error) error { return status.Error(codes.Internal, err.Error()) }

func uuid(field, text string) (pgtype.UUID, error) {
	var id pgtype.UUID
	if err := id.Scan(text); err != nil {
		return id, status.Errorf(codes.InvalidArgument, "%s must be a UUID", field)
	}
	return id, nil
}

func (s *server) FetchViolationById(
	ctx context.Context, request *pb.FetchViolationByIdRequest,
) (*pb.FetchViolationByIdResponse, error) {
	id, err := uuid("violation_id", request.ViolationId)
	if err != nil {
		return nil, err
	}
	rows, err := s.pool.Query(ctx, point, id)
	if err != nil {
		return nil, internal(err)
	}
	found, err := pgx.CollectOneRow(rows, violation)
	if errors.Is(err, pgx.ErrNoRows) {
		return &pb.FetchViolationByIdResponse{}, nil
	}
	if err != nil {
		return nil, internal(err)
	}
	return &pb.FetchViolationByIdResponse{Violation: found}, nil
}

func (s *server) FetchViolations(
	ctx context.Context, request *pb.FetchViolationsRequest,
) (*pb.FetchViolationsResponse, error) {
	limit := int32(100)
	if request.Limit != nil {
		limit = *request.Limit
	}
	rows, err := s.pool.Query(ctx, list, limit)
	if err != nil {
		return nil, internal(err)
	}
	found, err := pgx.CollectRows(rows, violation)
	if err != nil {
		return nil, internal(err)
	}
	return &pb.FetchViolationsResponse{Violations: found}, nil
}

func (s *server) InsertProvenance(
	ctx context.Context, request *pb.InsertProvenanceRequest,
) (*pb.InsertProvenanceResponse, error) {
	policy, err := uuid("policy_id", request.PolicyId)
	if err != nil {
		return nil, err
	}
	var id pgtype.UUID
	err = s.pool.QueryRow(ctx, write, policy, request.PolicyType, request.Action, request.ChangedBy,
		request.PolicyVersion, request.Reason).Scan(&id)
	if err != nil {
		return nil, internal(err)
	}
	return &pb.InsertProvenanceResponse{ProvenanceId: id.String(), RowsAffected: 1}, nil
}

func (s *server) StreamConflicts(
	_ *pb.StreamConflictsRequest, out grpc.ServerStreamingServer[pb.StreamConflictsResponse],
) error {
	rows, err := s.pool.Query(out.Context(), stream)
	if err != nil {
		return internal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var (
			found    pb.PolicyConflict
			id       pgtype.UUID
			types    *[]string
			resolved *time.Time
			detected time.Time
		)
		err := rows.Scan(&id, &found.PolicyA, &found.PolicyB, &found.ConflictType, &found.Severity, &found.Description,
			&types, &found.Resolved, &found.Resolution, &found.ResolvedBy, &resolved, &detected)
		if err != nil {
			return internal(err)
		}
		found.Id = id.String()
		if types != nil {
			found.AffectedActionTypes = &pb.StringList{Values: *types}
		}
		if resolved != nil {
			found.ResolvedAt = timestamppb.New(*resolved)
		}
		found.DetectedAt = timestamppb.New(detected)
		if err := out.Send(&pb.StreamConflictsResponse{Conflict: &found}); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return internal(err)
	}
	return nil
}

func main() {
	config, err := pgxpool.ParseConfig(os.Getenv("DATABASE_URL"))
	if err != nil {
		log.Fatal(err)
	}
	config.MaxConns = 10
	pool, err := pgxpool.NewWithConfig(context.Background(), config)
	if err != nil {
		log.Fatal(err)
	}
	if err := pool.Ping(context.Background()); err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	peer := grpc.NewServer()
	pb.RegisterPolicyEngineServiceServer(peer, &server{pool: pool})
	grpc_health_v1.RegisterHealthServer(peer, health.NewServer())
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGTERM)
	go func() {
		<-told
		peer.Stop()
	}()
	fmt.Printf("gRPC %s\n", listener.Addr())
	if err := peer.Serve(listener); err != nil {
		log.Fatal(err)
	}
}
