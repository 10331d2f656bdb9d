package policysidecar

import pb "policies.hoc/gen/hoc/cus/policies/v1"

// Services are the stubs of the data-access drivers; what is called through them is told by itself where it belongs.
type Services struct{ bound bound }

// ConflictResolver returns the stub of ConflictResolverService.
func (s Services) ConflictResolver() pb.ConflictResolverServiceClient {
	return pb.NewConflictResolverServiceClient(s.bound)
}

// PolicyArbitrator returns the stub of PolicyArbitratorService.
func (s Services) PolicyArbitrator() pb.PolicyArbitratorServiceClient {
	return pb.NewPolicyArbitratorServiceClient(s.bound)
}

// PolicyEngine returns the stub of PolicyEngineService.
func (s Services) PolicyEngine() pb.PolicyEngineServiceClient {
	return pb.NewPolicyEngineServiceClient(s.bound)
}

// PolicyGraph returns the stub of PolicyGraphService.
func (s Services) PolicyGraph() pb.PolicyGraphServiceClient {
	return pb.NewPolicyGraphServiceClient(s.bound)
}

// PolicyProposalRead returns the stub of PolicyProposalReadService.
func (s Services) PolicyProposalRead() pb.PolicyProposalReadServiceClient {
	return pb.NewPolicyProposalReadServiceClient(s.bound)
}

// PolicyProposalWrite returns the stub of PolicyProposalWriteService.
func (s Services) PolicyProposalWrite() pb.PolicyProposalWriteServiceClient {
	return pb.NewPolicyProposalWriteServiceClient(s.bound)
}

// PolicyRead returns the stub of PolicyReadService.
func (s Services) PolicyRead() pb.PolicyReadServiceClient {
	return pb.NewPolicyReadServiceClient(s.bound)
}

// PolicyRulesRead returns the stub of PolicyRulesReadService.
func (s Services) PolicyRulesRead() pb.PolicyRulesReadServiceClient {
	return pb.NewPolicyRulesReadServiceClient(s.bound)
}

// PolicyRules returns the stub of PolicyRulesService.
func (s Services) PolicyRules() pb.PolicyRulesServiceClient {
	return pb.NewPolicyRulesServiceClient(s.bound)
}

// ProposalsRead returns the stub of ProposalsReadService.
func (s Services) ProposalsRead() pb.ProposalsReadServiceClient {
	return pb.NewProposalsReadServiceClient(s.bound)
}

// RecoveryMatcher returns the stub of RecoveryMatcherService.
func (s Services) RecoveryMatcher() pb.RecoveryMatcherServiceClient {
	return pb.NewRecoveryMatcherServiceClient(s.bound)
}

// RecoveryWrite returns the stub of RecoveryWriteService.
func (s Services) RecoveryWrite() pb.RecoveryWriteServiceClient {
	return pb.NewRecoveryWriteServiceClient(s.bound)
}

// ScopeResolver returns the stub of ScopeResolverService.
func (s Services) ScopeResolver() pb.ScopeResolverServiceClient {
	return pb.NewScopeResolverServiceClient(s.bound)
}

// SymbolTable returns the stub of SymbolTableService.
func (s Services) SymbolTable() pb.SymbolTableServiceClient {
	return pb.NewSymbolTableServiceClient(s.bound)
}
