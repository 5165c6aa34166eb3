using NUnit.Framework;
using Vmm.Cli;
using Vmm.Devices.Virtio;
using Vmm.Devices.Virtio.VhostUser;
using Vmm.Vhost.User;

namespace Vmm.Tests.Cli;

public class VhostUserOptionTests
{
    private static readonly string s_longPath = "/" + new string('x', 107);

    private static T Device<T>(string option, string text)
        where T : VirtioDeviceOptions =>
        (T)RunOptionsReader.Read((RunOptions)Verbs.Parse(["run", "--kernel", "k", option, text])).Devices.Single();

    [Test]
    public void Fs_SocketAlone_HasTheDefaults()
    {
        var fs = Device<FsDeviceOptions>("--fs", "socket=/run/fs");
        Assert.That((fs.Tag, fs.Source, fs.Queues, fs.Dax), Is.EqualTo(((string?)null, (FsSource?)null, 1, false)));
        Assert.That(fs.Peer, Is.EqualTo(new VhostUserPeer { Endpoint = VhostUserEndpoint.ConnectTo("/run/fs") }));
        Assert.That((fs.Peer.Reconnect, fs.Peer.Timeout, fs.Peer.QueueSize), Is.EqualTo((true, TimeSpan.FromSeconds(5), (int?)null)));
    }

    [Test]
    public void Fs_AllKeys_AreRead()
    {
        var fs = Device<FsDeviceOptions>(
            "--fs", "tag=work,socket=/run/fs,server=on,reconnect=off,timeout=250ms,queues=3,queue_size=512,dax=on");
        Assert.That((fs.Tag, fs.Queues, fs.Dax), Is.EqualTo(("work", 3, true)));
        Assert.That(fs.Peer, Is.EqualTo(new VhostUserPeer
        {
            Endpoint = VhostUserEndpoint.ListenOn("/run/fs"),
            Reconnect = false,
            Timeout = TimeSpan.FromMilliseconds(250),
            QueueSize = 512,
        }));
    }

    [TestCase("tag=work,source=/srv,daemon=/d", "namespace")]
    [TestCase("tag=work,source=/srv,daemon=/d,sandbox=chroot", "chroot")]
    public void Fs_AnotherDaemon_HasASandbox(string text, string sandbox)
    {
        var fs = Device<FsDeviceOptions>("--fs", text);
        Assert.That(fs.Source, Is.EqualTo(new FsSource("/srv", sandbox, "/d")));
        Assert.That((fs.Peer.Endpoint, fs.Peer.Program, fs.Peer.Timeout), Is.EqualTo(((VhostUserEndpoint?)null, (DaemonProgram?)null, TimeSpan.FromSeconds(30))));
    }

    [TestCase("tag=work,source=/s", "--shared-dir /s --queues 1")]
    [TestCase("tag=work,source=/s,readonly=on,cache=always,xattr=off,queues=2,dax=on",
        "--shared-dir /s --queues 2 --readonly --cache always --no-xattr --dax-window 1G")]
    [TestCase("tag=work,source=/s,locks=guest,submounts=off", "--shared-dir /s --queues 1 --no-host-locks --no-announce-submounts")]
    [TestCase("tag=work,source=/s,locks=host,submounts=on,dax=never", "--shared-dir /s --queues 1")]
    [TestCase("tag=work,source=/s,owner=same", "--shared-dir /s --queues 1")]
    [TestCase("tag=work,source=/s,dax=always", "--shared-dir /s --queues 1 --dax-window 1G")]
    [TestCase("tag=work,source=/s,dax=inode", "--shared-dir /s --queues 1 --dax-window 1G --dax inode")]
    public void Fs_Source_StartsOurBackEnd(string text, string expected)
    {
        var fs = Device<FsDeviceOptions>("--fs", text);
        Assert.That((fs.Source, fs.Peer.Endpoint, fs.Peer.Timeout), Is.EqualTo(((FsSource?)null, (VhostUserEndpoint?)null, TimeSpan.FromSeconds(30))));
        Assert.That(string.Join(' ', fs.Peer.Program!.Arguments(3)), Does.Contain("backend fs --fd 3 --once").And.EndsWith(expected));
    }

    [TestCase("tag=x", "--fs: 'tag=x' names no back-end: write source=DIR to have one started, or socket=PATH of one that runs, or fd=N")]
    [TestCase("source=/srv", "--fs: 'source=/srv' has no tag, by which the guest mounts it: write tag=NAME")]
    [TestCase("tag=x,source=/srv,socket=/s", "--fs: socket='/s' cannot stand beside source=: either there is a back-end, or one is started")]
    [TestCase("tag=x,source=/srv,server=on", "--fs: server='on' cannot stand beside source=: either there is a back-end, or one is started")]
    [TestCase("tag=x,source=/srv,sandbox=chroot", "--fs: sandbox='chroot' has no effect without daemon=: our own back-end is always confined to its directory")]
    [TestCase("tag=x,source=/srv,queues=65", "--fs: queues='65' is not a number from 1 to 64")]
    [TestCase("tag=x,source=/srv,cache=some", "--fs: cache='some' is not allowed: choose one of auto, always, metadata, never")]
    [TestCase("tag=x,source=/srv,daemon=/d,readonly=on", "--fs: readonly='on' cannot stand beside daemon=: it is for our own back-end")]
    [TestCase("tag=x,socket=/s,xattr=off", "--fs: xattr='off' has no effect without source=: it is for a back-end that is started here")]
    [TestCase("tag=x,source=/srv,daemon=/d,sandbox=none", "--fs: sandbox='none' is not allowed: choose one of namespace, chroot")]
    [TestCase("tag=x,socket=/s,sandbox=chroot", "--fs: sandbox='chroot' has no effect without source=: it is for a back-end that is started here")]
    [TestCase("tag=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa,socket=/s",
        "--fs: tag='aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa' is too long: a tag has at most 36 bytes")]
    [TestCase("tag=\"\",socket=/s", "--fs: tag='' is empty: give the name by which the guest mounts the directory")]
    [TestCase("socket=/s,queues=256", "--fs: queues='256' is not a number from 1 to 255")]
    [TestCase("socket=/s,queue_size=3", "--fs: queue_size='3' is not a power of two")]
    [TestCase("tag=x,source=/srv,owner=me", "--fs: owner='me' is not allowed: choose one of same, root")]
    [TestCase("tag=x,source=/srv,locks=off", "--fs: locks='off' is not allowed: choose one of host, guest")]
    [TestCase("tag=x,source=/srv,dax=yes", "--fs: dax='yes' is not allowed: choose one of on, off, true, false, always, inode, never")]
    [TestCase("tag=x,source=/srv,dax=inode,privileged=off", "--fs: privileged='off' cannot stand beside dax=inode: the back-end does not see what the guest writes to files in its memory: leave one of them out")]
    [TestCase("socket=/s,dax=inode", "--fs: dax='inode' is not allowed: choose one of on, off, true, false")]
    [TestCase("tag=x,socket=/s,locks=guest", "--fs: locks='guest' has no effect without source=: it is for a back-end that is started here")]
    [TestCase("socket=/s,dax=yes", "--fs: dax='yes' is not allowed: choose one of on, off, true, false")]
    [TestCase("socket=/s,fd=3", "--fs: socket='/s' cannot stand beside fd=: a back-end is reached by a path or by a descriptor")]
    [TestCase("fd=3,server=off", "--fs: server='off' cannot stand beside fd=: the connection is there already")]
    [TestCase("fd=3,reconnect=on", "--fs: reconnect='on' cannot stand beside fd=: a connection that was inherited cannot be made again")]
    [TestCase("fd=2", "--fs: fd='2' is not a number from 3 to 2147483647")]
    [TestCase("socket=/s,timeout=soon", "--fs: timeout='soon' is not a time: write seconds, or a number with ms, s, m or h, such as 5s")]
    [TestCase("socket=/s,timeout=0", "--fs: timeout='0' is out of range: 1ms to 3600s")]
    [TestCase("socket=/s,timeout=3601", "--fs: timeout='3601' is out of range: 1ms to 3600s")]
    public void Fs_BadValue_IsRefused(string text, string expected) => AssertRefused("--fs", text, expected);

    [Test]
    public void Socket_PathTooLong_IsRefused() => AssertRefused(
        "--disk", $"socket={s_longPath}", $"--disk: socket='{s_longPath}' is too long: the path of a socket has at most 107 bytes");

    [TestCase("socket=/s", 1, false)]
    [TestCase("socket=/s,queues=2,readonly=on", 2, true)]
    public void Disk_Keys_AreRead(string text, int queues, bool isReadOnly)
    {
        var disk = Device<BlockDeviceOptions>("--disk", text);
        Assert.That((disk.Queues, disk.IsReadOnly), Is.EqualTo((queues, isReadOnly)));
    }

    [TestCase("file=/img", "--disk: unknown key 'file': allowed are path, direct, logical_block_size, lock, discard, serial, queues, readonly, socket, server, fd, reconnect, timeout, queue_size")]
    [TestCase("socket=/s,queues=257", "--disk: queues='257' is not a number from 1 to 256")]
    public void Disk_BadValue_IsRefused(string text, string expected) => AssertRefused("--disk", text, expected);

    [Test]
    public void Disk_Descriptor_IsNotReconnected()
    {
        var disk = Device<BlockDeviceOptions>("--disk", "fd=5");
        Assert.That(disk.Peer.Endpoint, Is.EqualTo(VhostUserEndpoint.Inherit(5)));
        Assert.That(disk.Peer.Reconnect, Is.False);
    }

    [Test]
    public void Net_Socket_IsASwitch()
    {
        var net = Device<VhostUserNetDeviceOptions>("--net", "socket=/s,queues=2,mac=02:00:00:00:00:01,mtu=9000,queue_size=512,timeout=3");
        Assert.That((net.QueuePairs, $"{net.Mac}", net.Mtu), Is.EqualTo((2, "02:00:00:00:00:01", (int?)9000)));
        Assert.That((net.Peer.QueueSize, net.Peer.Timeout), Is.EqualTo(((int?)512, TimeSpan.FromSeconds(3))));
    }

    [TestCase("user,vhost_user=on", "backend net --fd 3 --once --log-level warn --user --vhost-user")]
    [TestCase("user,vhost_user=off,host=on,port=80:81", "backend net --fd 3 --once --log-level warn --user --port 127.0.0.1:80:81 --host")]
    public void Net_User_WayToPasst(string text, string expected) =>
        Assert.That(string.Join(' ', Device<VhostUserNetDeviceOptions>("--net", text).Peer.Program!.Arguments(3)), Does.EndWith(expected));

    [TestCase("user,vhost_user=perhaps", "--net: vhost_user='perhaps' is not allowed: choose one of on, off, true, false")]
    [TestCase("socket=/s,tap=a", "--net: tap='a' cannot stand beside socket=: packets go to a tap or to another process")]
    [TestCase("socket=/s,fd=3", "--net: fd='3' cannot stand beside socket=: packets go to a tap or to another process")]
    [TestCase("socket=/s,vhost=on", "--net: vhost='on' cannot stand beside socket=: packets go to a tap or to another process")]
    [TestCase("tap=a,server=on", "--net: unknown key 'server': allowed are tap, fd, socket, mac, queues, queue_size, mtu, vhost")]
    public void Net_BadValue_IsRefused(string text, string expected) => AssertRefused("--net", text, expected);

    [TestCase("rng", VirtioDeviceType.Rng)]
    [TestCase("scsi", VirtioDeviceType.Scsi)]
    [TestCase("gpio", VirtioDeviceType.Gpio)]
    [TestCase("4", VirtioDeviceType.Rng)]
    [TestCase("0x30", (VirtioDeviceType)48)]
    public void VhostUser_Type_IsRead(string word, VirtioDeviceType type) =>
        Assert.That(Device<GenericDeviceOptions>("--vhost-user", $"type={word},socket=/s").Kind.Type, Is.EqualTo(type));

    [Test]
    public void VhostUser_TypesWithOptionsOfTheirOwn_HaveTheirKeys()
    {
        Assert.That(Device<FsDeviceOptions>("--vhost-user", "type=fs,fd=3,tag=x").Tag, Is.EqualTo("x"));
        Assert.That(Device<BlockDeviceOptions>("--vhost-user", "type=blk,fd=3,readonly=on").IsReadOnly);
        Assert.That(Device<VhostUserNetDeviceOptions>("--vhost-user", "type=net,fd=3,mtu=1400").Mtu, Is.EqualTo(1400));
        Assert.That(Device<BlockDeviceOptions>("--vhost-user", "type=2,socket=/s,config=00").Peer.Config?.Length, Is.EqualTo(1));
    }

    [Test]
    public void VhostUser_AllKeys_AreRead()
    {
        var device = Device<GenericDeviceOptions>("--vhost-user", "type=vsock,socket=/s,queues=2,queue_size=64,config=0300000000000000");
        Assert.That((device.Queues, device.Peer.QueueSize), Is.EqualTo(((int?)2, (int?)64)));
        Assert.That(device.Peer.Config!.Value.ToArray(), Is.EqualTo(new byte[] { 3, 0, 0, 0, 0, 0, 0, 0 }));
        Assert.That(Device<GenericDeviceOptions>("--vhost-user", "type=99,socket=/s,config_size=24").ConfigSize, Is.EqualTo(24));
    }

    [TestCase("socket=/s", "--vhost-user: 'socket=/s' has no type: write type= and one of fs, blk, net, scsi, vsock, rng, console, gpio, i2c, "
        + "input, gpu, snd, can, or a number")]
    [TestCase("type=floppy,socket=/s", "--vhost-user: type='floppy' is not allowed: choose one of fs, blk, net, scsi, vsock, rng, console, gpio, i2c, "
        + "input, gpu, snd, can, or a number")]
    [TestCase("type=0,socket=/s", "--vhost-user: type='0' is not a number from 1 to 65535")]
    [TestCase("type=rng", "--vhost-user: 'type=rng' names no back-end: write socket=PATH, or fd=N for an inherited socket")]
    [TestCase("type=rng,socket=/s,config=123", "--vhost-user: config='123' is not of hexadecimal digits, two for each byte")]
    [TestCase("type=rng,socket=/s,config=0g", "--vhost-user: config='0g' is not of hexadecimal digits, two for each byte")]
    [TestCase("type=rng,socket=/s,config=00,config_size=2", "--vhost-user: config_size='2' cannot stand beside config=, which has its own size")]
    [TestCase("type=rng,socket=/s,config_size=257", "--vhost-user: config_size='257' is not a number from 0 to 256")]
    [TestCase("type=scsi,socket=/s,queues=255", "--vhost-user: queues='255' is not a number from 1 to 254")]
    [TestCase("type=vsock,socket=/s,queues=256", "--vhost-user: queues='256' is not a number from 1 to 255")]
    [TestCase("type=rng,socket=/s,tag=x", "--vhost-user: unknown key 'tag': allowed are type, config, queues, config_size, socket, server, fd, "
        + "reconnect, timeout, queue_size")]
    [TestCase("type=net,socket=/s,config=00", "--vhost-user: unknown key 'config': allowed are type, mac, queues, mtu, socket, server, fd, "
        + "reconnect, timeout, queue_size")]
    [TestCase("type=blk,socket=/s,mac=02:00:00:00:00:01", "--vhost-user: unknown key 'mac': allowed are type, config, queues, readonly, socket, "
        + "server, fd, reconnect, timeout, queue_size")]
    public void VhostUser_BadValue_IsRefused(string text, string expected) => AssertRefused("--vhost-user", text, expected);

    private static void AssertRefused(string option, string text, string expected) => Assert.That(
        () => Device<VirtioDeviceOptions>(option, text), Throws.TypeOf<UsageException>().With.Message.EqualTo(expected));
}
