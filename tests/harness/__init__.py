"""What the integration and crash tests stand on: a real origin, real images, a real Holdfast, all taken down again.

sandbox       one test's directory, and everything that is started or mounted below it
nginx         an origin that can be slow, stopped and started, and whose log can be counted exactly
misbehaving   an origin that lies
certificates  an authority and what it has signed
s3            a server that checks S3's signatures
oci_registry  a real registry: TLS, passwords, tokens, redirects
oci_layout    OCI layouts: right Holdfast images, and wrong ones
images        trees, EROFS images and plain files to serve, made once and kept
layers        container images, layer by layer
snapshot      everything that can be seen of a tree, to compare two
holdfast      the programs under test
disk          a small file system whose power can be cut
machine       the daemons alone, on such a disk, one boot after another
systemd       a real systemd that runs the shipped units
secrets       where none may be found
readers       processes that read, and can be killed while they wait
programs      copies of those programs, to be replaced while they run
case          the unittest base class, and main()
"""
