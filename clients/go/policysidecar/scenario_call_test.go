package policysidecar_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"
)

// reply is what a call brought: messages in protobuf's JSON, or why it was refused.
type reply struct {
	messages []any
	stream   bool
	refusal  map[string]any
}

func (r reply) first() any {
	if len(r.messages) == 0 {
		return nil
	}
	return r.messages[0]
}

// methodOf finds an RPC, `Service/Method`, among those that are linked.
func methodOf(call string) (protoreflect.MethodDescriptor, error) {
	service, method, _ := strings.Cut(call, "/")
	name := "hoc.cus.policies.v1." + service
	if service == "Health" {
		name = grpc_health_v1.Health_ServiceDesc.ServiceName
	}
	found, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name + "." + method))
	if err != nil {
		return nil, err
	}
	return found.(protoreflect.MethodDescriptor), nil
}

// invoke makes the call of a step, without its client's help; a refusal is a reply.
func invoke(connection *grpc.ClientConn, step step) (reply, context.CancelFunc, error) {
	call, leave := context.WithTimeout(ctx, 60*time.Second)
	method, err := methodOf(step.Call)
	if err != nil {
		return reply{}, leave, err
	}
	headers := metadata.New(step.Headers)
	if step.Transaction != "" {
		headers.Set("transaction", step.Transaction)
	}
	request := dynamicpb.NewMessage(method.Input())
	if step.Request != nil {
		text, err := json.Marshal(step.Request)
		if err == nil {
			err = protojson.Unmarshal(text, request)
		}
		if err != nil {
			return reply{}, leave, err
		}
	}
	answer := reply{stream: method.IsStreamingServer()}
	stream, err := connection.NewStream(metadata.NewOutgoingContext(call, headers), &grpc.StreamDesc{ServerStreams: true},
		fmt.Sprintf("/%s/%s", method.Parent().FullName(), method.Name()))
	if err == nil {
		err = stream.SendMsg(request)
	}
	if err == nil {
		err = stream.CloseSend()
	}
	for err == nil && (step.Take == 0 || len(answer.messages) < step.Take) {
		message := dynamicpb.NewMessage(method.Output())
		if err = stream.RecvMsg(message); err != nil {
			break
		}
		text, problem := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(message)
		if problem != nil {
			return reply{}, leave, problem
		}
		var value any
		json.Unmarshal(text, &value)
		answer.messages = append(answer.messages, value)
	}
	if err != nil && err != io.EOF {
		answer.refusal = refusalOf(err)
	}
	return answer, leave, nil
}

func refusalOf(err error) map[string]any {
	told := status.Convert(err)
	fields, metadata, preconditions := []any{}, map[string]any{}, 0
	refusal := map[string]any{"code": code.Code_name[int32(told.Code())], "message": told.Message(), "retry": false}
	for _, detail := range told.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			refusal["reason"] = detail.Reason
			for key, value := range detail.Metadata {
				metadata[key] = value
			}
		case *errdetails.RetryInfo:
			refusal["retry"] = true
		case *errdetails.BadRequest:
			for _, each := range detail.FieldViolations {
				fields = append(fields, each.Field)
			}
		case *errdetails.PreconditionFailure:
			preconditions += len(detail.Violations)
		}
	}
	sortTexts(fields)
	refusal["fields"], refusal["metadata"], refusal["preconditions"] = fields, metadata, float64(preconditions)
	return refusal
}

func sortTexts(texts []any) {
	slices.SortFunc(texts, func(a, b any) int { return strings.Compare(a.(string), b.(string)) })
}

// problem tells where a reply is not as expected; empty where it is.
func (e expectation) problem(r reply) string {
	if e.Error != nil {
		if r.refusal == nil {
			return fmt.Sprintf("it succeeded, expected %v", e.Error)
		}
		if fields, ok := e.Error["fields"].([]any); ok {
			sortTexts(fields)
		}
		return difference("error", e.Error, r.refusal)
	}
	if r.refusal != nil {
		return fmt.Sprintf("it was refused: %v", r.refusal)
	}
	response := r.first()
	if r.stream {
		response = r.messages
	}
	if e.Response != nil {
		if problem := difference("response", e.Response, response); problem != "" {
			return problem
		}
	}
	return e.rowsProblem(r)
}

func (e expectation) rowsProblem(r reply) string {
	if e.Rows == nil {
		return ""
	}
	found, lists := len(r.messages), 0
	if !r.stream {
		for _, value := range r.first().(map[string]any) {
			if list, ok := value.([]any); ok {
				found, lists = len(list), lists+1
			}
		}
		if lists != 1 {
			return "the answer has not one list whose rows could be counted"
		}
	}
	least, most := float64(0), float64(found)
	switch wanted := e.Rows.(type) {
	case float64:
		least, most = wanted, wanted
	case map[string]any:
		if at, ok := wanted["at_least"].(float64); ok {
			least = at
		}
		if at, ok := wanted["at_most"].(float64); ok {
			most = at
		}
	}
	if float64(found) < least || float64(found) > most {
		return fmt.Sprintf("%d rows, expected %v", found, e.Rows)
	}
	return ""
}

// difference tells where something found lacks what was expected of it; more than that it may have.
func difference(path string, expected, found any) string {
	differs := fmt.Sprintf("%s is %v, expected %v", path, found, expected)
	switch wanted := expected.(type) {
	case []any:
		list, ok := found.([]any)
		if !ok || len(list) != len(wanted) {
			return differs
		}
		for i, each := range wanted {
			if problem := difference(fmt.Sprintf("%s[%d]", path, i), each, list[i]); problem != "" {
				return problem
			}
		}
		return ""
	case map[string]any:
		if len(wanted) == 1 {
			for key, value := range wanted {
				if strings.HasPrefix(key, "$") {
					if isSpecial(key, value, found) {
						return ""
					}
					return differs
				}
			}
		}
		object, ok := found.(map[string]any)
		if !ok {
			return differs
		}
		for key, value := range wanted {
			if problem := difference(path+"."+key, value, object[key]); problem != "" {
				return problem
			}
		}
		return ""
	}
	if !reflect.DeepEqual(expected, found) {
		return differs
	}
	return ""
}

// isSpecial tells whether something found is what an object of one key that begins with `$` asks for.
func isSpecial(key string, wanted, found any) bool {
	switch key {
	case "$present":
		return (found != nil) == wanted
	case "$contains":
		list, _ := found.([]any)
		return slices.ContainsFunc(list, func(each any) bool { return difference("", wanted, each) == "" })
	case "$matches":
		text, ok := found.(string)
		return ok && regexp.MustCompile(wanted.(string)).MatchString(text)
	}
	return false
}

// at is the value at a path, `scope.scopeId` or `results.0.rows`; nil where there is none.
func at(value any, path string) any {
	for key := range strings.SplitSeq(path, ".") {
		switch here := value.(type) {
		case map[string]any:
			value = here[key]
		case []any:
			i, err := strconv.Atoi(key)
			if err != nil || i >= len(here) {
				return nil
			}
			value = here[i]
		default:
			return nil
		}
	}
	return value
}
