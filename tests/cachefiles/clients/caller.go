// Makes calls of the kernel's on-demand cachefiles interface in Go, without the C library: as caller.c.
package main

import (
	"encoding/binary"
	"math"
	"os"
	"syscall"
	"unsafe"
)

const (
	socket       = 3
	memory       = 4
	sharedSize   = 4 << 20
	room         = 16384
	opOpen       = 0
	headerSize   = 16
	readComplete = 0x40049801 // CACHEFILES_IOC_READ_COMPLETE
)

var shared []byte
var edges = -1

func resultOf(count int, err error) int32 {
	if errno, failed := err.(syscall.Errno); failed {
		return -int32(errno)
	}
	return int32(count)
}

func reply(result int32, data []byte, fd int) {
	answer := binary.LittleEndian.AppendUint32(nil, uint32(result))
	var control []byte
	if fd >= 0 {
		control = syscall.UnixRights(fd)
	}
	if err := syscall.Sendmsg(socket, append(answer, data...), control, nil, syscall.MSG_NOSIGNAL); err != nil {
		os.Exit(1)
	}
}

func receive() ([]byte, int) {
	packet, control := make([]byte, room), make([]byte, syscall.CmsgSpace(4))
	for {
		size, controlSize, _, _, err := syscall.Recvmsg(socket, packet, control, 0)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || size == 0 {
			os.Exit(0)
		}
		fd := -1
		if messages, err := syscall.ParseSocketControlMessage(control[:controlSize]); err == nil && len(messages) == 1 {
			if fds, err := syscall.ParseUnixRights(&messages[0]); err == nil {
				fd = fds[0]
			}
		}
		return packet[:size], fd
	}
}

func readInParts(device int, message []byte) (int, error) {
	first, second, third := make([]byte, 25), make([]byte, 2), message[27:]
	parts := [3]syscall.Iovec{{Base: &first[0], Len: 25}, {Base: &second[0], Len: 2},
		{Base: &third[0], Len: uint64(len(third))}}
	got, _, errno := syscall.Syscall(syscall.SYS_READV, uintptr(device), uintptr(unsafe.Pointer(&parts)), 3)
	copy(message, first)
	copy(message[25:], second)
	if errno != 0 {
		return 0, errno
	}
	return int(got), nil
}

func readMessage(call byte, device int, size uint32) {
	message := make([]byte, size)
	var got int
	var err error
	switch call {
	case 'R':
		got, err = syscall.Read(device, message)
	case 'V':
		got, err = readInParts(device, message)
	case 'A':
		got, err = syscall.Pread(device, message, 0)
	}
	if err != nil {
		reply(resultOf(0, err), nil, -1)
		return
	}
	message = message[:got]
	fd := -1
	if got > 2*headerSize && binary.LittleEndian.Uint32(message[4:]) == opOpen &&
		int(binary.LittleEndian.Uint32(message[8:])) == got {
		fd = int(binary.LittleEndian.Uint32(message[headerSize+8:]))
	}
	reply(int32(got), message, fd)
	if fd >= 0 {
		syscall.Close(fd)
	}
}

func nextEdge(device, timeout int) (int, error) {
	var events [1]syscall.EpollEvent
	if edges < 0 {
		var err error
		if edges, err = syscall.EpollCreate1(syscall.EPOLL_CLOEXEC); err != nil {
			return 0, err
		}
		event := syscall.EpollEvent{Events: syscall.EPOLLIN | syscall.EPOLLOUT | 1<<31} // EPOLLET
		if err = syscall.EpollCtl(edges, syscall.EPOLL_CTL_ADD, device, &event); err != nil {
			return 0, err
		}
	}
	for {
		_, err := syscall.EpollWait(edges, events[:], timeout)
		if err != syscall.EINTR {
			return int(events[0].Events), err
		}
	}
}

func pollOne(fd int, events uint32, timeout int) (int, error) {
	one := struct {
		fd              int32
		events, revents int16
	}{int32(fd), int16(events), 0}
	for {
		_, _, errno := syscall.Syscall(syscall.SYS_POLL, uintptr(unsafe.Pointer(&one)), 1, uintptr(timeout))
		if errno == 0 {
			return int(one.revents), nil
		}
		if errno != syscall.EINTR {
			return 0, errno
		}
	}
}

func writeObject(fd int, shift uint32, argument []byte) (int, error) {
	offset, length := binary.LittleEndian.Uint64(argument), binary.LittleEndian.Uint64(argument[8:])
	bytes := shared[shift : uint64(shift)+length]
	if offset == math.MaxUint64 {
		return syscall.Write(fd, bytes)
	}
	return syscall.Pwrite(fd, bytes, int64(offset))
}

func fillDescriptorTable(isFull bool) error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	limit.Cur = limit.Max
	if isFull {
		free, err := syscall.Dup(0)
		if err != nil {
			return err
		}
		syscall.Close(free)
		limit.Cur = uint64(free)
	}
	return syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
}

// The calls that answer with a number only.
func numberOf(call byte, argument []byte, device, fd int) int32 {
	number := func() uint32 { return binary.LittleEndian.Uint32(argument) }
	switch call {
	case 'C':
		return resultOf(0, syscall.Close(device))
	case 'W':
		return resultOf(syscall.Write(device, argument))
	case 'E':
		return resultOf(nextEdge(device, int(int32(number()))))
	case 'D':
		return resultOf(0, syscall.Chdir(string(argument)))
	case 'N':
		return resultOf(0, fillDescriptorTable(number() != 0))
	case 'I':
		_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), readComplete, uintptr(number()))
		return -int32(errno)
	case 'P':
		return resultOf(writeObject(fd, number(), argument[4:]))
	case 'L':
		position, err := syscall.Seek(fd, int64(binary.LittleEndian.Uint64(argument[4:])), int(number()))
		return resultOf(int(position), err)
	case 'Q':
		if fd < 0 {
			fd = device
		}
		return resultOf(pollOne(fd, number(), int(int32(binary.LittleEndian.Uint32(argument[4:])))))
	}
	panic("no such call")
}

func main() {
	device := -1
	var err error
	if shared, err = syscall.Mmap(memory, 0, sharedSize, syscall.PROT_READ, syscall.MAP_SHARED); err != nil {
		os.Exit(1)
	}
	for {
		packet, fd := receive()
		argument := packet[1:]
		switch packet[0] {
		case 'O':
			device, err = syscall.Open(string(argument), syscall.O_RDWR|syscall.O_CLOEXEC, 0)
			reply(resultOf(0, err), nil, device)
		case 'R', 'V', 'A':
			readMessage(packet[0], device, binary.LittleEndian.Uint32(argument))
		default:
			result := numberOf(packet[0], argument, device, fd)
			if fd >= 0 {
				syscall.Close(fd) // Before the answer: the next call may be to see its last close.
			}
			reply(result, nil, -1)
		}
	}
}
