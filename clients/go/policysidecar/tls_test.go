package policysidecar_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	pb "policies.hoc/gen/hoc/cus/policies/v1"
	"policies.hoc/policysidecar"
)

// authority makes a certificate for 127.0.0.1 that is its own authority, and writes it as PEM.
func authority(t *testing.T, folder, name string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	signed, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	must(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: signed})
	must(t, os.WriteFile(filepath.Join(folder, name+".crt"), certificate, 0o600))
	must(t, os.WriteFile(filepath.Join(folder, name+".key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600))
	parsed, err := x509.ParseCertificate(signed)
	must(t, err)
	return tls.Certificate{Certificate: [][]byte{signed}, PrivateKey: key, Leaf: parsed}
}

func TestACertificateTellsWhoCalls(t *testing.T) {
	folder := t.TempDir()
	server, engine := authority(t, folder, "server"), authority(t, folder, "engine")
	_, address := serve(t,
		"SIDECAR_GRPC_LISTEN=127.0.0.1:0", "SIDECAR_TLS_CERT="+filepath.Join(folder, "server.crt"),
		"SIDECAR_TLS_KEY="+filepath.Join(folder, "server.key"), "SIDECAR_TLS_CLIENT_CA="+filepath.Join(folder, "engine.crt"))
	trusted := x509.NewCertPool()
	trusted.AddCert(server.Leaf)
	known := connect(t, address, policysidecar.Options{TLS: &tls.Config{RootCAs: trusted, Certificates: []tls.Certificate{engine}}})
	must(t, known.InTransaction(ctx, policysidecar.TxOptions{}, func(ctx context.Context, tx *policysidecar.Tx) error {
		got, err := known.Transactions().Get(ctx, &pb.TransactionServiceGetRequest{TransactionId: tx.ID()})
		if err == nil && got.Transaction.Caller != "engine" {
			t.Errorf("caller %s", got.Transaction.Caller)
		}
		return err
	}))
	stranger := connect(t, address, policysidecar.Options{TLS: &tls.Config{RootCAs: trusted}, FailFast: true})
	_, err := stranger.PolicyEngine().FetchRiskCeilings(ctx, &pb.FetchRiskCeilingsRequest{})
	wants(t, err, policysidecar.ErrUnavailable)
}
